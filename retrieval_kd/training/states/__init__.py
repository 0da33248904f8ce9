"""Objectives on hidden states and features. Start at `imitation.py`."""
