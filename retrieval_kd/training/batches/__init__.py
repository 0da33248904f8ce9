"""From queries with targets to the tensors of a batch. Start at `slates.py`."""
