"""Objectives as a training uses them: terms and their score matrices. Start at `terms.py`."""
