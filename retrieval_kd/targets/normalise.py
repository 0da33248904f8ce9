"""Turns stored scores into training targets: normalises them per query, and fuses teachers.

This happens at training time, so that one expensive scoring serves many experiments. Fusions work
on one query's scores (T, N): T teachers, N candidates that all of them scored. A teacher whose
scores of a query are all equal does not change the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import kendalltau, rankdata

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import Drops, InputError

Scores = dict[str, dict[str, float]]  # query ID → document ID → score


def z_scores(values: np.ndarray) -> np.ndarray:
    """Return (x − mean) / standard deviation of one query's scores (N,); zeros if all are equal.

    Example:
        >>> z_scores(np.array([1.0, 3.0])).tolist(), z_scores(np.array([2.0, 2.0])).tolist()
        ([-1.0, 1.0], [0.0, 0.0])
    """
    if all_alike(values):
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


def min_max(values: np.ndarray) -> np.ndarray:
    """Return (x − min) / (max − min) of one query's scores (N,), 0 to 1; zeros if all are equal.

    Example:
        >>> min_max(np.array([2.0, 3.0, 6.0])).tolist(), min_max(np.array([2.0, 2.0])).tolist()
        ([0.0, 0.25, 1.0], [0.0, 0.0])
    """
    if all_alike(values):
        return np.zeros_like(values)
    return (values - values.min()) / np.ptp(values)


def all_alike(values: np.ndarray) -> bool:
    """Whether scores (N,) differ by no more than rounding errors.

    These are about 1e-16 of the scores' size, or of 1 if a fit found all of them to be 0.
    """
    return bool(values.std() <= 1e-7 * max(1.0, float(np.abs(values).max(initial=0.0))))


def fuse(
    teachers: Sequence[Scores],
    weights: Sequence[float],
    drops: Drops | None = None,
    *,
    normalise: bool | None = None,
    names: Sequence[str] = (),
) -> Scores:
    """Sum Σ_k w_k · z_k per query, with each teacher's scores z-normalised over the candidates.

    Only candidates that all teachers scored are kept; the others are counted in `drops`.

    Args:
        normalise: whether to z-normalise; by default if there are several teachers. One teacher's
            scores stay raw, because MarginMSE needs logits.

    Raises:
        InputError: no candidate was scored by all teachers.
    """
    if len(teachers) != len(weights):
        raise InputError(
            f"{len(weights)} weights for {len(teachers)} teachers", remedy="give one for each"
        )
    prepare = z_scores if (len(teachers) > 1 if normalise is None else normalise) else np.asarray

    def weighted(scores: np.ndarray) -> np.ndarray:
        return sum(
            (weight * prepare(row) for weight, row in zip(weights, scores, strict=True)),
            np.zeros(scores.shape[1]),
        )

    return fuse_by(weighted, teachers, drops, names)


def fuse_by(
    function: Callable[[np.ndarray], np.ndarray],
    teachers: Sequence[Scores],
    drops: Drops | None = None,
    names: Sequence[str] = (),
) -> Scores:
    """Fuse teachers by a function that turns a query's scores (T, N) into (N,).

    Only candidates that all teachers scored are kept; the others are counted in `drops`.

    Example:
        >>> fuse_by(lambda scores: scores.max(0), [{"q": {"a": 1.0}}, {"q": {"a": 3.0, "b": 9.0}}])
        {'q': {'a': 3.0}}
    """
    fused: Scores = {}
    for query_id, documents, scores in aligned(teachers, drops, names):
        fused[query_id] = dict(zip(documents, function(scores).tolist(), strict=True))
    if not fused:
        raise InputError(
            "no candidate was scored by all teachers",
            remedy="score the same candidates with each teacher",
        )
    return fused


def rank_fusion(scores: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Return Σ_t w_t / (60 + rank of the candidate by teacher t), (N,), independent of scales.

    Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), as `retrieval/retrieve.py`
    computes it without ties. Equal scores share their mean rank here, because targets must not
    depend on the names of documents.

    Example:
        >>> rank_fusion(np.array([[3.0, 2.0], [5.0, 5.0]]), [1.0, 1.0]).round(4).tolist()
        [0.0327, 0.0324]
    """
    ranks = rankdata(-scores, axis=1)  # (T, N)
    return np.asarray(weights) @ (1 / (60 + ranks))


def agreement(scores: np.ndarray) -> np.ndarray:
    """Return the mean Kendall τ-b of each teacher with the others, (T,), from −1 to 1.

    With a teacher whose scores are all equal it is 0.

    Example:
        >>> agreement(np.array([[3.0, 2.0, 1.0], [9.0, 8.0, 7.0], [1.0, 2.0, 3.0]])).tolist()
        [0.0, 0.0, -1.0]
    """
    count = len(scores)
    correlations = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            if np.ptp(scores[i]) > 0 and np.ptp(scores[j]) > 0:
                correlations[i, j] = correlations[j, i] = kendalltau(scores[i], scores[j]).statistic
    return np.round(correlations.sum(1) / max(1, count - 1), 12)


def agreement_weighted(scores: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Return Σ_t w_t a_t z_t / Σ_t w_t a_t, (N,): teachers that agree with the others count more.

    z_t are teacher t's z-scores and a_t = max(0, `agreement`) of its scores of this query. If no
    teacher agrees with the others, all a_t are 1. Two teachers always have equal a_t.

    Example:
        >>> odd_one_out = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [2.0, 3.0, 1.0]])
        >>> agreement_weighted(odd_one_out, [1.0] * 3).round(2).tolist()
        [0.98, 0.24, -1.22]
    """
    agreed = np.maximum(agreement(scores), 0.0)
    share = np.asarray(weights) * (agreed if agreed.any() else np.ones(len(scores)))
    if not share.any():  # the teachers that agree have no weight
        share = np.asarray(weights)
    return share / share.sum() @ np.array([z_scores(row) for row in scores])


def aligned(
    teachers: Sequence[Scores], drops: Drops | None = None, names: Sequence[str] = ()
) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Yield each query's ID, the documents that all teachers scored (N), and their scores (T, N).

    With `names`, a candidate that is left out is counted for each teacher that lacks it.
    """
    for query_id in dict.fromkeys(q for teacher in teachers for q in teacher):
        lists = [teacher.get(query_id, {}) for teacher in teachers]
        shared = [d for d in lists[0] if all(d in other for other in lists[1:])]
        if drops is not None:
            _count_lost(query_id, lists, len(shared), names, drops)
        if shared:
            rows = [[scores[d] for d in shared] for scores in lists]
            yield query_id, shared, np.array(rows, dtype=np.float64)


def _count_lost(
    query: str, lists: Sequence[dict[str, float]], kept: int, names: Sequence[str], drops: Drops
) -> None:
    every = len({document for scores in lists for document in scores})
    if names:
        for name, scores in zip(names, lists, strict=True):
            if len(scores) < every:
                drops.add(f"candidate that {name} did not score", query, every - len(scores))
    elif kept < every:
        drops.add("candidate not scored by every teacher", query, every - kept)


def rerank(name: str, scores: Scores) -> Run:
    """Return the run that ranks each query's candidates by the scores."""
    return Run(name, {query_id: dict(documents) for query_id, documents in scores.items()})
