"""Comparison of teachers, before paying for one. Start at `compare.py`."""
