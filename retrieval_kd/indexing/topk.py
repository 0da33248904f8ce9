"""Chooses the best documents from scores; ties are broken by document ID, ascending."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Ranking = dict[str, float]
"""Document ID → score, best first."""


def top_k(
    scores: np.ndarray,
    depth: int,
    id_at: Callable[[int], str],
    *,
    positions: np.ndarray | None = None,
    exclude: str | None = None,
) -> Ranking:
    """Return the `depth` highest of `scores (n,)`, best first; equal scores by document ID.

    Only the IDs of documents that can be in the result are looked up, so `n` may be millions.

    Args:
        positions: the documents' positions `(n,)`, when they are not 0, 1, …, n − 1.
        exclude: a document ID to leave out (the query's own).

    Example:
        >>> top_k(np.array([1.0, 3.0, 1.0, 2.0]), 3, "dbca".__getitem__)
        {'b': 3.0, 'a': 2.0, 'c': 1.0}
    """
    needed = depth + (exclude is not None)
    if needed < len(scores):
        smallest = np.partition(scores, len(scores) - needed)[len(scores) - needed]
        chosen = np.flatnonzero(scores >= smallest)  # includes everything tied with the last one
    else:
        chosen = np.arange(len(scores))
    rows = chosen if positions is None else positions[chosen]
    keyed = [
        (-float(score), id_at(int(position)))
        for score, position in zip(scores[chosen], rows, strict=True)
    ]
    kept = [(id, -negative) for negative, id in sorted(keyed) if id != exclude]
    return dict(kept[:depth])
