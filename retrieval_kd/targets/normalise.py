"""From stored answers to training targets: normalise per query, fuse several teachers.

This happens at training time, so that one expensive scoring serves many experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import Drops, InputError

Scores = dict[str, dict[str, float]]  # query ID → document ID → score


def z_scores(values: np.ndarray) -> np.ndarray:
    """(x − mean) / standard deviation of one query's scores (N,); all zero if all are equal.

    Example:
        >>> z_scores(np.array([1.0, 3.0])).tolist(), z_scores(np.array([2.0, 2.0])).tolist()
        ([-1.0, 1.0], [0.0, 0.0])
    """
    if all_alike(values):
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


def all_alike(values: np.ndarray) -> bool:
    """Whether scores (N,) differ by no more than rounding leaves.

    That is about 1e-16 of their size, and of 1 where a fit found all of them to be 0.
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
    """Σ_k w_k · z_k per query: each teacher's scores z-normalised over the candidates, summed.

    Only candidates that all teachers scored are kept; the others are counted in `drops`.

    Args:
        names: of the teachers, to say which of them did not score a candidate.
        normalise: whether to z-normalise. Default: where there are several teachers. One teacher's
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
    """One teacher of several: per query, `function` of their scores (T, N) gives its scores (N,).

    Only candidates that all teachers scored are kept; the others are counted in `drops`.

    Example:
        >>> fuse_by(lambda scores: scores.max(0), [{"q": {"a": 1.0}}, {"q": {"a": 3.0, "b": 9.0}}])
        {'q': {'a': 3.0}}

    Raises:
        InputError: no candidate was scored by all teachers.
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


def aligned(
    teachers: Sequence[Scores], drops: Drops | None = None, names: Sequence[str] = ()
) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Per query: its ID, the documents that all teachers scored (N), their scores (T, N).

    With `names`, a candidate that is left out counts for each teacher that lacks it.
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
    """The run that ranks each query's candidates by the (fused) teacher's score."""
    return Run(name, {query_id: dict(documents) for query_id, documents in scores.items()})
