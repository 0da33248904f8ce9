"""Configuration files as pydantic models. Start at `run.py`."""
