"""The leakage audit: training data compared with evaluation data. Start at `audit.py`."""
