"""Language models behind one protocol. Start at `protocol.py`."""
