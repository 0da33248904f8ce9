"""Language models on an OpenAI-compatible server. Start at `model.py`."""
