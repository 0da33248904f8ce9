"""`rkd serve`: indexes to search in a browser and by JSON. Start at `service.py`."""
