"""`rkd run`: all stages of one configuration. Start at `plan.py`."""
