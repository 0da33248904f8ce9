"""Teachers: everything that scores or compares candidates. Start at `kinds.py`, their table."""
