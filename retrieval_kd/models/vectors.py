"""Encodes texts with sparse and multi-vector models, and scores the results exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from sentence_transformers.util import maxsim

from retrieval_kd.errors import InputError, log

_TOLD: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()  # sides that were warned of
Tokens = list[np.ndarray]  # one (tokens, D) array per text


def sparse_width(model: SparseEncoder) -> int:
    """Return the number of words V that a model weighs, from what it gives for a text.

    A pooling that was saved without its size makes `get_embedding_dimension` that of the states.
    """
    return int(model.encode_document(["."], show_progress_bar=False).shape[-1])


def sparse_rows(
    model: SparseEncoder, texts: Sequence[str], side: str, *, prompt: str | None = None
) -> csr_matrix:
    """Encode texts as word weights `(len(texts), V)` in float32; `side`: "query" or "document"."""
    if not texts:
        return csr_matrix((0, sparse_width(model)), dtype=np.float32)
    encode: Any = model.encode_query if side == "query" else model.encode_document
    # Before pooling, a batch's logits are texts × tokens × vocabulary: keep it small.
    batch = 64 if torch.cuda.is_available() else 8
    encoded = encode(
        list(texts), prompt=prompt, batch_size=batch, show_progress_bar=False, save_to_cpu=True
    )
    encoded = encoded.coalesce()  # (n, V)
    weights = _finite(encoded.values().float().numpy())
    rows = csr_matrix((weights, tuple(encoded.indices().numpy())), shape=tuple(encoded.shape))
    rows.sort_indices()
    warn_of_zeros(model, rows.getnnz(axis=1) == 0, side)
    return rows


def token_rows(
    model: MultiVectorEncoder, texts: Sequence[str], side: str, *, prompt: str | None = None
) -> Tokens:
    """Encode each text as float32 vectors `(tokens, D)` of the tokens that take part in scoring."""
    if not texts:
        return []
    encode: Any = model.encode_query if side == "query" else model.encode_document
    batch = 256 if torch.cuda.is_available() else 32
    encoded = encode(list(texts), prompt=prompt, batch_size=batch, show_progress_bar=False)
    rows = [_finite(tokens.float().cpu().numpy()) for tokens in encoded]
    warn_of_zeros(model, np.array([not tokens.any() for tokens in rows]), side)
    return rows


def sparse_scores(queries: csr_matrix, postings: csr_matrix) -> np.ndarray:
    """Dot products `(Q, n)`. Row v of `postings (V, n)` has the documents' weights of word v.

    Example:
        >>> weights = csr_matrix(np.array([[1.0, 0.0], [0.0, 2.0]]))
        >>> sparse_scores(weights[1:], weights.T.tocsr()).tolist()
        [[0.0, 4.0]]
    """
    return (queries @ postings).toarray()


def maxsim_scores(queries: Tokens, documents: Tokens) -> np.ndarray:
    """MaxSim `(Q, n)`: the sum over a query's tokens of the best dot product with a document token.

    Example:
        >>> one, other = np.eye(2, dtype=np.float32)
        >>> maxsim_scores([np.stack([one, other])], [np.stack([one]), np.stack([one, other])])
        array([[1., 2.]], dtype=float32)
    """
    if not queries or not documents:
        return np.zeros((len(queries), len(documents)), dtype=np.float32)
    left, right = ([torch.from_numpy(row) for row in rows] for rows in (queries, documents))
    return maxsim(left, right).numpy()


def warn_of_zeros(model: object, zeros: Any, side: str) -> None:
    """Warn once per model and side of texts whose vectors are zeros alone: `zeros` (n,) bool.

    Where texts come in parts, the count is that of the first part with such a text.
    """
    told = _TOLD.setdefault(model, set())
    if zeros.any() and side not in told:
        told.add(side)
        say_zeros(int(zeros.sum()), len(zeros), side)


def say_zeros(zeros: int, count: int, side: str) -> None:
    nouns = {"query": "queries", "document": "documents"}
    log.warning(
        "the model gave %d of %d %s vectors of zeros alone: their similarity to everything is 0",
        *(zeros, count, nouns[side]),
    )


def _finite(numbers: np.ndarray) -> np.ndarray:
    if not np.isfinite(numbers).all():
        raise InputError(
            "the model gave numbers that are not finite",
            remedy="try RETRIEVAL_KD_DTYPE=float32, and check the model's weights for NaN",
        )
    return numbers
