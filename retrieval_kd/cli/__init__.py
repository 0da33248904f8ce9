"""The command line. Start at `app.py`."""
