"""`rkd plan`: what a run will take, before it begins. Start at `forecast.py`."""
