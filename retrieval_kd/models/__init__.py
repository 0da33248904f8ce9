"""Loading and running models. Start at `load.py`."""
