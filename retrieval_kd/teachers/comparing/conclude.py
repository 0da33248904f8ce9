"""From stored answers about pairs and lists to one score per candidate.

Nothing is asked here. The formulas are in `aggregate_pairs.py` and `aggregate_orders.py`; without
one, an order is what the strategy itself concludes when it is run again over the stored answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.errors import InputError
from retrieval_kd.store.answer_rows import Row
from retrieval_kd.store.answers import AnswerStore, Known
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Strategy, log_odds_of
from retrieval_kd.store.shards import document_digest
from retrieval_kd.targets.aggregate_orders import ORDER_AGGREGATIONS, Order
from retrieval_kd.targets.aggregate_pairs import PAIR_AGGREGATIONS, preferences_of
from retrieval_kd.teachers.comparing.listwise import ListwiseOptions
from retrieval_kd.teachers.comparing.strategy_run import (
    QueryCandidates,
    Scores,
    asked_by,
    query_candidates,
    replay,
)

Candidates = Mapping[str, Sequence[str]]
# Documents (n,) of one query and P(i is better than j) of them (n, n), NaN where it was not asked.
AnsweredPairs = tuple[list[str], np.ndarray]


def answered_scores(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    answers: AnswerStore,
    aggregate: str | None = None,
    *,
    strategy: Strategy | None = None,
    by: Scores | None = None,
) -> dict[str, dict[str, float]]:
    """What the answers say of the candidates: query ID → document ID → score, higher is better.

    A candidate that no answer ranks has no score. A query of which answers are still missing has
    none by default, and with an aggregation those of the answers there are.

    Args:
        aggregate: of pairs `win_rate`, `copeland` or `bradley_terry`; of lists `reciprocal_rank`,
            `borda`, `discounted_rank` or `plackett_luce`, over all answers. Default: for pairs the
            win rate, or Bradley–Terry where not all pairs were asked; for lists what the strategy
            concludes (of windows and heaps 1 / rank, of tournaments the halvings survived).
        strategy: only what this one asks of these candidates counts; none: all that is stored, and
            of conclusions the latest.
        by: the scores that it chooses by, if it does.

    Raises:
        InputError: no such aggregation of this kind of answers.
    """
    pairs = answers.key.kind == "pairwise"
    named = PAIR_AGGREGATIONS if pairs else ORDER_AGGREGATIONS
    if aggregate is not None and aggregate not in named:
        raise InputError(
            f"no aggregation {aggregate!r} of {answers.key.kind} answers",
            id=answers.key.model,
            remedy=f"choose one of {', '.join(named)}",
        )
    topics = [query_candidates(collection, queries, q, ids, by) for q, ids in candidates.items()]
    if pairs and aggregate is None:
        aggregate = "win_rate" if all_pairs_asked(answers, topics, strategy) else "bradley_terry"
    found: dict[str, dict[str, float]] = {}
    for topic in topics:
        known = _known(answers, topic, strategy)
        if aggregate is None:
            by_text = concluded(known)
        elif pairs:
            values = PAIR_AGGREGATIONS[aggregate](preferences(known, topic.digests))
            by_text = _told(topic, values)
        else:
            best_only = answers.key.prompt.startswith("best ")
            orders = orders_of(known, topic.digests, best_only=best_only)
            by_text = _told(topic, ORDER_AGGREGATIONS[aggregate](len(topic.digests), orders))
        scores = {}
        for id in candidates[topic.query_id]:
            document = collection.documents[id]
            digest = document_digest(document.title, document.text)
            if digest in by_text:
                scores[id] = by_text[digest]
        if scores:
            found[topic.query_id] = scores
    return found


def answered_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    answers: AnswerStore,
    *,
    strategy: Strategy | None = None,
    by: Scores | None = None,
) -> dict[str, AnsweredPairs]:
    """What a pairwise teacher said of two candidates at a time, for objectives on pairs.

    Queries of which no pair was answered in both orders are left out. Documents of one text share
    what was said of it. `strategy` and `by` are as in `answered_scores`.

    Raises:
        InputError: the teacher was not asked about pairs.
    """
    if answers.key.kind != "pairwise":
        raise InputError(
            f"a {answers.key.kind} teacher says nothing of pairs",
            id=answers.key.model,
            remedy="name a pairwise: teacher",
        )
    found = {}
    for query_id, ids in candidates.items():
        topic = query_candidates(collection, queries, query_id, ids, by)
        better = preferences(_known(answers, topic, strategy), topic.digests)  # (texts, texts)
        if np.isnan(better).all():
            continue
        texts = (collection.documents[id] for id in ids)
        digests = [document_digest(document.title, document.text) for document in texts]
        at = np.array([topic.digests.index(digest) for digest in digests])
        found[query_id] = (list(ids), better[np.ix_(at, at)])
    return found


def aggregation(key: TeacherKey, names: Sequence[str]) -> str | None:
    """The one of `names` that is for this teacher's kind of answers, if any."""
    for name in names:
        if name not in (*PAIR_AGGREGATIONS, *ORDER_AGGREGATIONS):
            every = ", ".join([*PAIR_AGGREGATIONS, *ORDER_AGGREGATIONS])
            raise InputError(f"no aggregation {name!r}", remedy=f"choose of {every}")
    of_kind = {"pairwise": list(PAIR_AGGREGATIONS), "listwise": list(ORDER_AGGREGATIONS)}
    return next((name for name in names if name in of_kind.get(key.kind, [])), None)


def check_aggregations(keys: Sequence[TeacherKey], names: Sequence[str]) -> None:
    """Refuse aggregations that none of these teachers' answers would be put together by.

    Raises:
        InputError: an unknown name, one of a kind that no teacher is of, or a second of a kind.
    """
    used = {aggregation(key, names) for key in keys}
    for name in names if keys else ():
        if name not in used:
            kind = "pairwise" if name in PAIR_AGGREGATIONS else "listwise"
            there = any(key.kind == kind for key in keys)
            problem = f"a second one of {kind} answers" if there else f"no {kind} teacher is there"
            raise InputError(f"aggregation {name!r}: {problem}", remedy="leave it out")


def concluded(known: Known) -> dict[str, float]:
    """What the latest finished strategy concludes, as text digest → score; empty if there is none.

    The strategy and the candidates it was given are in the store, so this is what it said then.
    """
    for listing in reversed(known.listings):
        result = replay(_topic_of(listing), known, strategy_of(listing.strategy))
        if result is not None:
            return {listing.document_digests[place]: score for place, score in result.items()}
    return {}


def strategy_of(spec: str) -> Strategy:
    """The listwise strategy that a store's list was given.

    Example:
        >>> strategy_of("how=windows&window=4&stride=2&passes=1").calls(8)
        3
    """
    return ListwiseOptions.model_validate(dict(parse_qsl(spec))).strategy()


def pairs_of(known: Known, digests: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Answered pairs of these documents: (M, 2) in the order shown, and their log-odds (M,)."""
    place = {digest: number for number, digest in enumerate(digests)}
    shown, odds = [], []
    for pair, answer in known.answers.items():
        if len(pair) == 2 and all(digest in place for digest in pair):
            shown.append([place[digest] for digest in pair])
            odds.append(log_odds_of(answer))
    return np.array(shown, dtype=np.int64).reshape(-1, 2), np.array(odds, dtype=np.float64)


def preferences(known: Known, digests: Sequence[str]) -> np.ndarray:
    """P(i better than j) (N, N) of these documents by both orders, NaN where not both are there."""
    return preferences_of(len(digests), *pairs_of(known, digests))


def orders_of(known: Known, digests: Sequence[str], *, best_only: bool = False) -> list[Order]:
    """Every answered order, of these documents alone; see `aggregate_orders.py`.

    Args:
        best_only: the best was asked for, so those not named stand below it. Otherwise nothing was
            said of them.
    """
    place = {digest: number for number, digest in enumerate(digests)}
    orders = []
    for shown, answer in known.answers.items():
        named = answer.order or ()
        rest = [at for at in range(len(shown)) if at not in named] if named and best_only else []
        ranked, below = (
            tuple(place[shown[at]] for at in part if shown[at] in place) for part in (named, rest)
        )
        if ranked and len(ranked) + len(below) > 1:
            orders.append(Order(ranked, below))
    return orders


def all_pairs_asked(
    answers: AnswerStore, topics: Sequence[QueryCandidates], strategy: Strategy | None = None
) -> bool:
    """Whether the strategy, or the latest one of every topic, is to ask about all pairs."""
    if strategy is not None:
        return strategy.spec == "pairs=all"
    latest = [answers.known(topic.query_digest).listings[-1:] for topic in topics]
    return all(listing.strategy == "pairs=all" for listings in latest for listing in listings)


def listed(answers: AnswerStore) -> list[Row]:
    """Every query's candidates as a strategy was given them, the latest list of each."""
    latest = [answers.known(query).listings[-1:] for query in answers.queries()]
    return [listing for listings in latest for listing in listings]


def _known(answers: AnswerStore, topic: QueryCandidates, strategy: Strategy | None) -> Known:
    """What counts of the answers about a topic."""
    known = answers.known(topic.query_digest)
    return known if strategy is None else asked_by(strategy, topic, known)


def _topic_of(listing: Row) -> QueryCandidates:
    """Enough of a topic to run a strategy over stored answers."""
    return QueryCandidates(listing.query_id, "", listing.query_digest, (), listing.document_digests)


def _told(topic: QueryCandidates, values: np.ndarray) -> dict[str, float]:
    scores = zip(topic.digests, values.tolist(), strict=True)
    return {digest: score for digest, score in scores if score == score}  # not NaN
