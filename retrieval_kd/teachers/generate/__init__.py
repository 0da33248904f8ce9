"""Texts that a language model writes about documents. Queries are in `queries.py`."""
