"""The store of teacher scores and answers. Start at `scores.py`."""
