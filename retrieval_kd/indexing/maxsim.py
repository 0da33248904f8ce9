"""MaxSim without padding: documents of all lengths stand one below the other."""

from __future__ import annotations

import numpy as np

NO_TOKENS = -1e9  # score of a document without a token, as in Sentence Transformers' `maxsim`


def sum_of_best(similar: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sum over a query's tokens of the best similarity with a token of each document, `(n,)`.

    Args:
        similar: of all documents' tokens to the query's, `(sum of lengths, query tokens)`.
        lengths: tokens of each document `(n,)`; one without scores below all others.

    Example:
        >>> similar = np.array([[0.0, 1.0], [1.0, 0.5], [0.2, 0.3]])
        >>> sum_of_best(similar, np.array([2, 0, 1])).tolist()
        [2.0, -1000000000.0, 0.5]
    """
    scores = np.full(len(lengths), NO_TOKENS, dtype=similar.dtype)
    filled = lengths > 0  # reduceat reads a row where a document has none
    starts = np.cumsum(lengths)[filled] - lengths[filled]
    if len(starts):
        scores[filled] = np.maximum.reduceat(similar, starts, axis=0).sum(axis=1)
    return scores


def rows_of(positions: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of some documents' tokens, one document after the other, and their lengths.

    Args:
        offsets: row at which each document begins, and the number of all rows `(documents + 1,)`.

    Example:
        >>> rows, lengths = rows_of(np.array([2, 0]), np.array([0, 2, 3, 6]))
        >>> rows.tolist(), lengths.tolist()
        ([3, 4, 5, 0, 1], [3, 2])
    """
    lengths = offsets[positions + 1] - offsets[positions]
    ends = np.cumsum(lengths)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    return np.repeat(offsets[positions], lengths) + within, lengths
