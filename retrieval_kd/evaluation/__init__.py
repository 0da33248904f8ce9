"""Evaluation, comparison and reports. Start at `evaluate_runs.py`."""
