"""Reciprocal rank fusion of several runs, computed by ranx."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import ranx

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.topk import Ranking

ABSENT = "-" * 9  # stands in for a query's missing or empty ranking


def hybrid_run(
    runs: Sequence[Run], *, k: int = 60, depth: int | None = None, name: str | None = None
) -> Run:
    """Fuse rankings by rank alone: score(d) = Σ over runs of 1 / (k + rank of d), ranks from 1.

    Cormack, Clarke and Büttcher, SIGIR 2009. Ranks follow score, then document ID ascending. A
    run adds nothing to queries and documents that it lacks.

    Args:
        k: larger values flatten the weight of top ranks; 60 is the paper's.
        depth: documents to keep per query; None keeps all.

    Example:
        >>> a = Run("a", {"q": {"d1": 9.0, "d2": 8.0}})
        >>> b = Run("b", {"q": {"d2": 0.9, "d3": 0.1}})
        >>> {id: round(score, 5) for id, score in hybrid_run([a, b]).results["q"].items()}
        {'d2': 0.03252, 'd1': 0.01639, 'd3': 0.01613}
    """
    if len(runs) < 2:
        raise InputError("fusion needs at least two runs", remedy="give two, or use the one alone")
    name = name or "+".join(run.name for run in runs)
    queries = list(dict.fromkeys(query_id for run in runs for query_id in run.results))
    if not queries:
        return Run(name, {})
    numbers: dict[str, str] = {}  # document ID → nine digits
    ranked = [_by_rank(run, queries, numbers) for run in runs]
    with warnings.catch_warnings():  # numba warns about a harmless cast inside ranx
        warnings.simplefilter("ignore")
        fused = ranx.fuse(ranked, norm=None, method="rrf", params={"k": k}).to_dict()
    ids = {number: id for id, number in numbers.items()}
    results: dict[str, Ranking] = {}
    for query_id in queries:
        scores = {ids[n]: score for n, score in fused[query_id].items() if n != ABSENT}
        best = sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))
        results[query_id] = dict(best[:depth])
    return Run(name, results)


def _by_rank(run: Run, queries: Sequence[str], numbers: dict[str, str]) -> ranx.Run:
    """Convert a run for ranx.

    Scores become −rank, so that ranx has no ties to break. A missing or empty ranking, which ranx
    refuses, becomes ABSENT. IDs become numbers of equal width, because ranx recompiles its code for
    every new length of the longest ID.
    """
    ranked: dict[str, Ranking] = {}
    for query_id in queries:
        ranking = run.results.get(query_id, {})  # best first, ties by ID: a Run is sorted
        ranked[query_id] = {
            numbers.setdefault(id, f"{len(numbers):09d}"): -float(rank)
            for rank, id in enumerate(ranking, start=1)
        } or {ABSENT: -1.0}
    return ranx.Run(ranked, name=run.name)
