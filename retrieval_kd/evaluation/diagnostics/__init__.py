"""Where a student fails, and how close it is to its teacher. Start at `diagnose.py`."""
