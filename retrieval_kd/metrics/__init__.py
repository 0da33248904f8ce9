"""Measures and significance tests. Start at `measures.py`."""
