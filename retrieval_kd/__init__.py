"""Distil rerankers into retrieval models. `docs/architecture.md` says what lives where."""

__version__ = "0.1.0"
