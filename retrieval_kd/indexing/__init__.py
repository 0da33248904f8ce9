"""FAISS, sparse and multi-vector indexes. Start at `index.py`."""
