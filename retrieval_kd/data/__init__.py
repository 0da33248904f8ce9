"""Collections, runs and judgments. Start at `collection.py`."""
