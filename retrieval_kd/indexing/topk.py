"""Chooses the best documents from scores, in the order of a `Run`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retrieval_kd.data.runs import ranked, single

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
    """Return the `depth` highest of `scores (n,)`, in the order of `ranked`.

    Only the IDs of documents that can be in the result are looked up, so `n` may be millions.

    Args:
        positions: the documents' positions `(n,)`, when they are not 0, 1, …, n − 1.
        exclude: a document ID to leave out (the query's own).

    Example:
        >>> top_k(np.array([1.0, 3.0, 1.0, 2.0]), 3, "dbca".__getitem__)
        {'b': 3.0, 'a': 2.0, 'd': 1.0}
    """
    needed = depth + (exclude is not None)
    compared = single(scores)
    if needed < len(scores):
        smallest = np.partition(compared, len(scores) - needed)[len(scores) - needed]
        chosen = np.flatnonzero(compared >= smallest)  # includes everything tied with the last one
    else:
        chosen = np.arange(len(scores))
    rows = chosen if positions is None else positions[chosen]
    found = {
        id_at(int(position)): float(score)
        for score, position in zip(scores[chosen], rows, strict=True)
    }
    if exclude is not None:
        found.pop(exclude, None)
    return dict(list(ranked(found).items())[:depth])
