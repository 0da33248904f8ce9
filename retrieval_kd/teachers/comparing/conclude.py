"""Conclusions from stored answers: one score for each candidate, or preferences between pairs.

No teacher is needed. The formulas are in `targets/aggregate_pairs.py` and
`targets/aggregate_orders.py`. Without an aggregation, a listwise strategy is replayed on the stored
answers and its own conclusion counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.scores import Scores
from retrieval_kd.errors import InputError
from retrieval_kd.store.answers import AnswerStore, QueryAnswers, Row
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Strategy, log_odds_of
from retrieval_kd.targets.aggregate_orders import ORDER_AGGREGATIONS, Order
from retrieval_kd.targets.aggregate_pairs import PAIR_AGGREGATIONS, preferences_of
from retrieval_kd.teachers.comparing.listwise import ListwiseOptions
from retrieval_kd.teachers.comparing.run_strategies import (
    Candidates,
    QueryCandidates,
    answers_of_strategy,
    query_candidates,
    replay,
)

# Kind of comparing teacher → name → function from its answers to scores.
AGGREGATIONS: dict[str, Mapping[str, Callable[..., np.ndarray]]] = {
    "pairwise": PAIR_AGGREGATIONS,
    "listwise": ORDER_AGGREGATIONS,
}
# Documents (n,) of one query and P(i is better than j) (n, n), NaN where i and j were not compared.
PairPreferences = tuple[list[str], np.ndarray]


def conclude_scores(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    answers: AnswerStore,
    aggregate: str | None = None,
    *,
    strategy: Strategy | None = None,
    by: Scores | None = None,
) -> dict[str, dict[str, float]]:
    """Compute scores from stored answers: query ID → document ID → score, higher is better.

    A candidate that no answer ranks has no score. A list whose strategy is unfinished has no scores
    by default; with an aggregation, the answers stored so far count.

    Args:
        aggregate: for pairs `win_rate`, `copeland` or `bradley_terry`; for lists `reciprocal_rank`,
            `borda`, `discounted_rank` or `plackett_luce` over all answers. Default: for pairs the
            win rate, or Bradley–Terry if not all pairs were compared; for lists what the strategy
            concludes (1 / rank for windows and heaps, halvings survived for tournaments).
        strategy: count only the answers that this strategy requests. Default: all stored answers,
            or the conclusion of the latest strategy.
        by: the scores that the strategy chooses by, if any.

    Raises:
        InputError: the aggregation does not exist for this kind of answers.
    """
    pairwise = answers.key.kind == "pairwise"
    aggregations = AGGREGATIONS[answers.key.kind]
    if aggregate is not None and aggregate not in aggregations:
        raise InputError(
            f"no aggregation {aggregate!r} of {answers.key.kind} answers",
            id=answers.key.model,
            remedy=f"choose one of {', '.join(aggregations)}",
        )
    lists = [query_candidates(collection, queries, q, ids, by) for q, ids in candidates.items()]
    if pairwise and aggregate is None:
        if strategy is None:
            latest = latest_strategies(answers, [query.query_digest for query in lists])
            every_pair = all(row.strategy == "pairs=all" for row in latest)
        else:
            every_pair = strategy.spec == "pairs=all"
        aggregate = "win_rate" if every_pair else "bradley_terry"
    concluded: dict[str, dict[str, float]] = {}
    for query in lists:
        stored = _stored_answers(answers, query, strategy)
        if aggregate is None:
            by_digest = conclude_latest(stored)
        elif pairwise:
            values = PAIR_AGGREGATIONS[aggregate](preferences(stored, query.digests))
            by_digest = _ranked(query, values)
        else:
            best_only = answers.key.prompt.startswith("best ")
            orders = orders_of(stored, query.digests, best_only=best_only)
            values = ORDER_AGGREGATIONS[aggregate](len(query.digests), orders)
            by_digest = _ranked(query, values)
        scores = {id: by_digest[d] for id, d in query.digest_of.items() if d in by_digest}
        if scores:
            concluded[query.query_id] = scores
    return concluded


def conclude_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    answers: AnswerStore,
    *,
    strategy: Strategy | None = None,
    by: Scores | None = None,
) -> dict[str, PairPreferences]:
    """Compute a pairwise teacher's preferences, for objectives on pairs.

    Queries without a pair that was compared in both orders are left out. Documents of the same text
    have the same preferences. `strategy` and `by` are as in `conclude_scores`.
    """
    if answers.key.kind != "pairwise":
        raise InputError(
            f"a {answers.key.kind} teacher does not compare pairs",
            id=answers.key.model,
            remedy="name a pairwise: teacher",
        )
    concluded = {}
    for query_id, ids in candidates.items():
        query = query_candidates(collection, queries, query_id, ids, by)
        better = preferences(_stored_answers(answers, query, strategy), query.digests)  # (T, T)
        if np.isnan(better).all():
            continue
        text_of = np.array([query.digests.index(d) for d in query.digest_of.values()])  # (n,)
        concluded[query_id] = (list(query.digest_of), better[np.ix_(text_of, text_of)])  # (n, n)
    return concluded


def aggregation(key: TeacherKey, names: Sequence[str]) -> str | None:
    """The first of these aggregations that suits the teacher's kind of answers, if any."""
    every = [name for aggregations in AGGREGATIONS.values() for name in aggregations]
    for name in names:
        if name not in every:
            raise InputError(f"no aggregation {name!r}", remedy=f"choose one of {', '.join(every)}")
    return next((name for name in names if name in AGGREGATIONS.get(key.kind, ())), None)


def check_aggregations(keys: Sequence[TeacherKey], names: Sequence[str]) -> None:
    """Refuse aggregations that no teacher would use."""
    used = {aggregation(key, names) for key in keys}
    for name in names if keys else ():
        if name not in used:
            kind = "pairwise" if name in PAIR_AGGREGATIONS else "listwise"
            second = any(key.kind == kind for key in keys)
            problem = f"a second one of {kind} answers" if second else f"no {kind} teacher is there"
            raise InputError(f"aggregation {name!r}: {problem}", remedy="leave it out")


def conclude_latest(stored: QueryAnswers) -> dict[str, float]:
    """Replay the latest finished strategy: text digest → score; empty if none is finished.

    Strategy and candidates come from the store, so the result is what the strategy concluded then.
    """
    for row in reversed(stored.strategies):
        query = QueryCandidates(row.query_id, "", row.query_digest, (), row.document_digests)
        result = replay(query, stored, parse_strategy(row.strategy))
        if result is not None:
            return {row.document_digests[place]: score for place, score in result.items()}
    return {}


def parse_strategy(spec: str) -> Strategy:
    """Parse the stored spec of a listwise strategy.

    Example:
        >>> parse_strategy("how=windows&window=4&stride=2&passes=1").most_requests(8)
        3
    """
    return ListwiseOptions.model_validate(dict(parse_qsl(spec))).strategy()


def preferences(stored: QueryAnswers, digests: Sequence[str]) -> np.ndarray:
    """P(i better than j) (N, N) of these documents, NaN unless both orders were answered."""
    place = {digest: number for number, digest in enumerate(digests)}
    shown, odds = [], []
    for pair, answer in stored.answers.items():
        if len(pair) == 2 and all(digest in place for digest in pair):
            shown.append([place[digest] for digest in pair])
            odds.append(log_odds_of(answer))
    pairs = np.array(shown, dtype=np.int64).reshape(-1, 2)  # (M, 2), in the order shown
    return preferences_of(len(digests), pairs, np.array(odds, dtype=np.float64))


def orders_of(
    stored: QueryAnswers, digests: Sequence[str], *, best_only: bool = False
) -> list[Order]:
    """Every answered order, restricted to these documents; see `targets/aggregate_orders.py`.

    Args:
        best_only: the request was for the best document only, so the others rank below it. If an
            order was requested, documents that the answer does not name have no rank.
    """
    place = {digest: number for number, digest in enumerate(digests)}
    orders = []
    for shown, answer in stored.answers.items():
        order = answer.order or ()
        rest = [at for at in range(len(shown)) if at not in order] if order and best_only else []
        ranked, below = (
            tuple(place[shown[at]] for at in part if shown[at] in place) for part in (order, rest)
        )
        if ranked and len(ranked) + len(below) > 1:
            orders.append(Order(ranked, below))
    return orders


def latest_strategies(answers: AnswerStore, query_digests: Sequence[str]) -> list[Row]:
    """The latest strategy row of each of these queries, with the candidates it started from."""
    latest = [answers.of_query(digest).strategies[-1:] for digest in query_digests]
    return [row for rows in latest for row in rows]


def _stored_answers(
    answers: AnswerStore, query: QueryCandidates, strategy: Strategy | None
) -> QueryAnswers:
    """The stored answers that count."""
    stored = answers.of_query(query.query_digest)
    return stored if strategy is None else answers_of_strategy(strategy, query, stored)


def _ranked(query: QueryCandidates, values: np.ndarray) -> dict[str, float]:
    """Text digest → score, without the texts that have none (NaN)."""
    scores = zip(query.digests, values.tolist(), strict=True)
    return {digest: score for digest, score in scores if not np.isnan(score)}
