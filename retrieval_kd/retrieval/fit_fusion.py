"""Chooses the weights of a fusion on judged queries, and checks them on queries left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.runs import Run, single
from retrieval_kd.errors import InputError
from retrieval_kd.metrics.significance import t_test
from retrieval_kd.retrieval.fuse import Found, How, floor, normalised
from retrieval_kd.targets.weights import Share, best, cautious, shares

MEASURE, DEPTH = "ndcg@10", 10
FEWEST = 20  # judged queries; fewer cannot choose weights


@dataclass(frozen=True)
class Lists:
    """What the parts of an index found for queries, and how much they were asked for.

    Attributes:
        runs: by part's name.
        asked: documents per query.
        by_words: parts that list only documents that share a word with the query.
    """

    runs: Mapping[str, Run]
    asked: int
    by_words: frozenset[str]

    def of(self, query: str) -> tuple[list[Found], list[float]]:
        """The parts' lists of a query, and their floors."""
        found: list[Found] = [run.results.get(query, {}) for run in self.runs.values()]
        floors = [
            floor(one, self.asked, name in self.by_words)
            for name, one in zip(self.runs, found, strict=True)
        ]
        return found, floors


def fit_weights(
    lists: Lists, qrels: Qrels, how: How, *, careful: bool = False
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the weights that rank judged queries best by nDCG@10, and what was measured.

    Tried are equal weights, and all in tenths that sum to 1 (quarters of more than four parts).
    Each half of the queries also chooses for the other one: the mean over both is what the fusion
    is worth on queries that did not choose it. The best part alone is chosen so too.

    Args:
        careful: of all weights that are not clearly worse than the best, take those nearest to
            equal ones. For queries that nobody asked.

    Raises:
        InputError: fewer than 20 queries have a relevant document.
    """
    judged = gains_of(qrels)
    if len(judged) < FEWEST:
        raise InputError(
            f"{len(judged)} judged queries are too few to choose weights; it takes {FEWEST}",
            remedy="name a split with more, or give --weights equal",
        )
    names, tried = list(lists.runs), shares(len(lists.runs))
    values = values_of(tried, lists, judged, how)  # (G, Q)
    alone = [tried.index(tuple(np.eye(len(names))[at])) for at in range(len(names))]
    chosen = (cautious if careful else best)(tried, values)
    order = np.random.default_rng(0).permutation(len(judged))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    fused, part, picks = np.zeros(len(judged)), np.zeros(len(judged)), []
    for own, other in (halves, halves[::-1]):
        pick = (cautious if careful else best)(tried, values[:, own])
        fused[other] = values[tried.index(pick), other]
        part[other] = values[max(alone, key=lambda at: values[at, own].mean()), other]
        picks.append(dict(zip(names, pick, strict=True)))
    means = values.mean(1)
    facts = {
        "queries": len(judged),
        "measure": MEASURE,
        "alone": {name: _round(means[at]) for name, at in zip(names, alone, strict=True)},
        "equal": _round(means[0]),
        "fused": _round(means[tried.index(chosen)]),
        "held_out": {
            "fused": _round(fused.mean()),
            "best_part": _round(part.mean()),
            "p": _round(t_test(np.round(fused - part, 12))),
            "weights": picks,
        },
    }
    return dict(zip(names, chosen, strict=True)), facts


def gains_of(qrels: Qrels) -> dict[str, dict[str, int]]:
    """Query → document → gain above 0, without the document that is the query itself.

    Queries without a relevant document are left out, as `metrics` does.
    """
    positive = {
        query: {id: gain for id, gain in own.items() if gain > 0 and id != query}
        for query, own in qrels.items()
    }
    return {query: own for query, own in positive.items() if own}


def values_of(
    tried: Sequence[Share], lists: Lists, judged: Mapping[str, Mapping[str, int]], how: How
) -> np.ndarray:
    """Return nDCG@10 of each query's fused list with each share: (G, Q).

    The order is that of `fuse_lists`, and the measure that of `metrics.evaluate`; here many shares
    are computed at a time.
    """
    values = np.zeros((len(tried), len(judged)))
    with_support = sorted(enumerate(tried), key=lambda one: _support(one[1]))
    for support, group in groupby(with_support, key=lambda one: _support(one[1])):
        rows, weights = zip(*((at, [share[i] for i in support]) for at, share in group),
                            strict=True)  # fmt: skip
        for column, (query, gains) in enumerate(judged.items()):
            found, floors = lists.of(query)
            ids, parts = normalised([found[i] for i in support], how, [floors[i] for i in support])
            values[list(rows), column] = _ndcg(np.array(weights) @ parts, ids, gains)
    return values


def _support(share: Share) -> tuple[int, ...]:
    return tuple(at for at, weight in enumerate(share) if weight)


def _ndcg(scores: np.ndarray, ids: Sequence[str], gains: Mapping[str, int]) -> np.ndarray:
    """Return nDCG@10 of each row of scores (G, N) of documents in descending order of their IDs."""
    own = np.array([gains.get(id, 0) for id in ids], np.float64)
    order = np.argsort(-single(scores), axis=1, kind="stable")[:, :DEPTH]  # ties by ID, descending
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    ideal = np.sort(np.fromiter(gains.values(), np.float64))[::-1][:DEPTH]
    reached: np.ndarray = own[order] @ discounts[: order.shape[1]]
    return reached / (ideal @ discounts[: len(ideal)])


def _round(value: float) -> float:
    return round(float(value), 4)
