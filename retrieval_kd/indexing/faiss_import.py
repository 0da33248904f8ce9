"""Imports `faiss`, or says how to install it: it comes in a CPU and a GPU package."""

from __future__ import annotations

from retrieval_kd.errors import InputError

try:
    import faiss
except ImportError as error:
    raise InputError(
        "faiss is not installed", remedy="pip install 'retrieval_kd[cpu]', or [gpu]"
    ) from error

__all__ = ["faiss"]
