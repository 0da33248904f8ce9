"""Token vectors whose sums are another model's vectors of documents, by ridge regression."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve
from scipy.sparse import csr_matrix, diags

from retrieval_kd.models.modules.token_table import TokenBags

MOST = 6_000  # documents that are fitted: a system of equations of this size takes seconds
RIDGE = 0.1  # λ; the one value that was tried
K, B = 1.2, 0.75  # of BM25's saturation of counts


def drawn(documents: int, seed: int = 0) -> np.ndarray:
    """Return the positions of at most 6,000 documents, in order."""
    rows = np.arange(documents)
    if documents <= MOST:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))


def fit_tokens(
    start: np.ndarray, idf: np.ndarray, bags: TokenBags, rows: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """Return U (V, D) that minimises ‖X U − Y‖² + λ ‖U − g · start‖².

    X (n, V) has a document's saturated counts times idf, in rows of unit length; Y (n, D) are the
    documents' centred vectors; g is the scale by which `start` alone fits them best. A token that
    no document has keeps g · start. Solved in the dual, with n equations for each dimension.

    Args:
        start: (V, D) token vectors.
        idf: (V,).
        bags: tokens of all documents.
        rows: (n,) positions of the documents that are fitted.
        vectors: (n, D) of these.
    """
    taken = bags.take(rows).saturated(K, B, float(bags.lengths.mean()))
    counts = csr_matrix((taken.counts, taken.tokens, taken.starts), shape=(len(rows), len(start)))
    x = counts @ diags(idf)  # (n, V)
    lengths = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())  # (n,)
    x = (diags(1 / np.maximum(lengths, 1e-6)) @ x).tocsr().astype(np.float32)
    y = np.array(vectors, dtype=np.float32)  # (n, D)
    y -= y.mean(axis=0)
    first = x @ start  # (n, D)
    g = float((first * y).sum() / max(float((first * first).sum()), 1e-12))
    kernel = (x @ x.T).toarray()  # (n, n)
    kernel[np.diag_indices_from(kernel)] += RIDGE
    rest = solve(kernel, y - g * first, assume_a="pos", overwrite_a=True, overwrite_b=True)
    return np.asarray(g * start + x.T @ rest, dtype=np.float32)
