"""Student kinds, one file each. Start at `make.py`."""
