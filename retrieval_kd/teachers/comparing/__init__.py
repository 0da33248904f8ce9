"""Teachers that compare documents: pairs and lists. Start at `run_strategies.py`."""
