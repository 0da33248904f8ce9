"""Fuses what several indexes found for a query: a weighted sum of normalised scores, or of ranks.

L lists with N documents between them become values (L, N), and these one score per document (N,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from retrieval_kd.data.runs import ranked
from retrieval_kd.targets.normalise import min_max, z_scores

How = Literal["min_max", "z_scores", "ranks"]
HOWS = get_args(How)
K = 60  # of reciprocal ranks, as Cormack, Clarke and Büttcher chose it
CANDIDATES = 100  # documents of each list that are fused

Found = Mapping[str, float]
"""Document ID → score, best first."""


def fuse_lists(
    lists: Sequence[Found],
    weights: Sequence[float],
    how: How = "min_max",
    floors: Sequence[float] | None = None,
    k: int = K,
) -> dict[str, float]:
    """Return Σ_l w_l · v_l of every document in a list with a weight, in the order of a `Run`.

    v_l is the list's score of the document, normalised over the documents of all these lists:

    - `min_max`: (x − min) / (max − min), from 0 to 1;
    - `z_scores`: (x − mean) / standard deviation;
    - `ranks`: 1 / (k + rank), 0 for a document that the list lacks.

    For the first two, a document that a list lacks has the list's floor. A list without a weight
    adds nothing, its documents neither.

    Args:
        floors: the score of what a list lacks; by default its lowest. See `floor`.
        k: of ranks; larger values flatten the weight of top ranks.

    Example:
        >>> words, vectors = {"a": 9.0, "b": 3.0}, {"b": 0.8, "c": 0.6}
        >>> fused = fuse_lists([words, vectors], [0.4, 0.6], floors=[0.0, 0.6])
        >>> {id: round(score, 3) for id, score in fused.items()}
        {'b': 0.733, 'a': 0.4, 'c': 0.0}
    """
    used = [at for at, weight in enumerate(weights) if weight]
    ids, values = normalised(
        [lists[at] for at in used],
        how,
        None if floors is None else [floors[at] for at in used],
        k,
    )
    scores = np.array([weights[at] for at in used]) @ values  # (N,)
    return ranked(dict(zip(ids, scores.tolist(), strict=True)))


def normalised(
    lists: Sequence[Found], how: How, floors: Sequence[float] | None = None, k: int = K
) -> tuple[list[str], np.ndarray]:
    """Return the IDs of all lists' documents, descending, and their values (L, N).

    Example:
        >>> normalised([{"a": 9.0, "b": 3.0}, {"c": 0.8}], "min_max", [0.0, 0.6])[1].round(3)
        array([[0.   , 0.333, 1.   ],
               [1.   , 0.   , 0.   ]])
    """
    ids = sorted({id for one in lists for id in one}, reverse=True)
    if not ids:
        return ids, np.zeros((len(lists), 0))
    if how == "ranks":
        ranks = [{id: 1 / (k + rank) for rank, id in enumerate(one, 1)} for one in lists]
        return ids, np.array([[one.get(id, 0.0) for id in ids] for one in ranks])
    if floors is None:
        floors = [min(one.values(), default=0.0) for one in lists]
    rows = [[one.get(id, low) for id in ids] for one, low in zip(lists, floors, strict=True)]
    prepare = min_max if how == "min_max" else z_scores
    return ids, np.array([prepare(np.array(row, np.float64)) for row in rows])


def floor(found: Found, asked: int, by_words: bool) -> float:
    """Return the score of a document that a list of at most `asked` documents lacks.

    A list by words (BM25, a sparse model) that is not full has every document that shares a word
    with the query, so any other one's score is 0. Of other lists it is only known that it is no
    better than the last one's, and so it counts as that.

    Example:
        >>> floor({"a": 9.0, "b": 3.0}, 100, by_words=True), floor({"a": 0.9, "b": 0.3}, 2, False)
        (0.0, 0.3)
    """
    return 0.0 if by_words and len(found) < asked else min(found.values(), default=0.0)
