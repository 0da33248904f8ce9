"""Teachers: everything that scores or compares candidates. Start at `kinds.py`, the table of kinds."""
