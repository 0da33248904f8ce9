"""First-stage retrieval and rank fusion. Start at `retrieve.py`."""
