"""Evaluation on many collections. Start at `run.py`."""
