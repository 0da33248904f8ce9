"""Turns stored scores into training targets: normalises them per query, and fuses teachers.

This happens at training time, so that one expensive scoring serves many experiments. Fusions work
on one query's scores (T, N): T teachers, N candidates that all of them scored. A teacher whose
scores of a query are all equal does not change the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import kendalltau, rankdata

from retrieval_kd.data.runs import Run
from retrieval_kd.data.scores import Scores, ScoreTable, in_one_numbering
from retrieval_kd.errors import Drops, InputError


def z_scores(values: np.ndarray) -> np.ndarray:
    """Return (x − mean) / standard deviation of a query's scores (…, N); zeros if all are equal.

    Example:
        >>> z_scores(np.array([1.0, 3.0])).tolist(), z_scores(np.array([2.0, 2.0])).tolist()
        ([-1.0, 1.0], [0.0, 0.0])
    """
    alike = all_alike(values)[..., None]
    spread = np.where(alike, 1, values.std(-1, keepdims=True))
    return np.where(alike, 0, (values - values.mean(-1, keepdims=True)) / spread)


def min_max(values: np.ndarray) -> np.ndarray:
    """Return (x − min) / (max − min) of one query's scores (N,), 0 to 1; zeros if all are equal.

    Example:
        >>> min_max(np.array([2.0, 3.0, 6.0])).tolist(), min_max(np.array([2.0, 2.0])).tolist()
        ([0.0, 0.25, 1.0], [0.0, 0.0])
    """
    if all_alike(values):
        return np.zeros_like(values)
    return (values - values.min()) / np.ptp(values)


def all_alike(values: np.ndarray) -> np.ndarray:
    """Whether a query's scores (…, N) differ by no more than rounding errors.

    These are about 1e-16 of the scores' size, or of 1 if a fit found all of them to be 0.
    """
    return np.asarray(values.std(-1) <= 1e-7 * np.abs(values).max(-1, initial=1.0))


def fuse(
    teachers: Sequence[Scores],
    weights: Sequence[float],
    drops: Drops | None = None,
    *,
    normalise: bool | None = None,
    names: Sequence[str] = (),
) -> ScoreTable:
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

    def weighted(scores: np.ndarray) -> np.ndarray:  # (T, Q, N) → (Q, N)
        return sum(
            (weight * prepare(rows) for weight, rows in zip(weights, scores, strict=True)),
            np.zeros(scores.shape[1:]),
        )

    return _fuse_stacks(weighted, teachers, drops, names)


def fuse_by(
    function: Callable[[np.ndarray], np.ndarray],
    teachers: Sequence[Scores],
    drops: Drops | None = None,
    names: Sequence[str] = (),
) -> ScoreTable:
    """Fuse teachers by a function that turns a query's scores (T, N) into (N,).

    Only candidates that all teachers scored are kept; the others are counted in `drops`.

    Example:
        >>> teachers = [{"q": {"a": 1.0}}, {"q": {"a": 3.0, "b": 9.0}}]
        >>> dict(fuse_by(lambda scores: scores.max(0), teachers))
        {'q': {'a': 3.0}}
    """

    def one_by_one(scores: np.ndarray) -> np.ndarray:  # (T, Q, N) → (Q, N)
        return np.stack([function(row) for row in np.ascontiguousarray(scores.swapaxes(0, 1))])

    return _fuse_stacks(one_by_one, teachers, drops, names)


def _fuse_stacks(
    function: Callable[[np.ndarray], np.ndarray],
    teachers: Sequence[Scores],
    drops: Drops | None,
    names: Sequence[str],
) -> ScoreTable:
    """Fuse by a function of the scores (T, Q, N) of queries with equally many candidates."""
    shared, scores = aligned(teachers, drops, names)
    if not shared.pairs:
        raise InputError(
            "no candidate was scored by all teachers",
            remedy="score the same candidates with each teacher",
        )
    fused = np.empty(shared.pairs)
    for at in shared.stacks():
        fused[at] = function(np.array([values[at] for values in scores], np.float64))
    return shared.with_scores(fused)


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
) -> tuple[ScoreTable, list[np.ndarray]]:
    """Return the pairs that all teachers scored, and the scores (n,) of each teacher.

    With `names`, a candidate that is left out is counted for each teacher that lacks it.
    """
    tables = in_one_numbering(teachers)
    first, values = tables[0], [table.scores_for(tables[0]) for table in tables]
    both = np.logical_and.reduce([~np.isnan(scores) for scores in values])
    shared = first.keep(both)
    if drops is not None:
        _count_lost(tables, shared, names, drops)
    return shared, values if both.all() else [scores[both] for scores in values]


def _count_lost(
    tables: Sequence[ScoreTable], shared: ScoreTable, names: Sequence[str], drops: Drops
) -> None:
    if all(table.pairs == shared.pairs for table in tables):
        return
    queries = list(dict.fromkeys(query for table in tables for query in table))
    tables, kept = [table.of_queries(queries) for table in tables], shared.of_queries(queries)
    size = 1 + max(int(table.documents.max(initial=0)) for table in tables)
    pairs = [table.owners * np.int64(size) + table.documents for table in tables]
    every = np.bincount(np.unique(np.concatenate(pairs)) // size, minlength=len(queries))
    if names:
        lost = {
            f"candidate that {name} did not score": every - table.counts
            for name, table in zip(names, tables, strict=True)
        }
    else:
        lost = {"candidate not scored by every teacher": every - kept.counts}
    drops.add_all(lost, queries)


def rerank(name: str, scores: Scores) -> Run:
    """Return the run that ranks each query's candidates by the scores."""
    return Run(name, {query_id: dict(documents) for query_id, documents in scores.items()})
