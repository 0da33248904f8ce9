"""The HTML report and the tables. Start at `page.py`."""
