"""From stored answers to training targets. Start at `combine.py`."""
