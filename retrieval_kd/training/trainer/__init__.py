"""The trainer: steps, checkpoints, devices, learning curve. Start at `engine.py`."""
