"""Stored answers of several teachers for a collection's queries, as training needs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import with_relevant
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import query_digest
from retrieval_kd.store.scores import ScoreStore, TeacherKey
from retrieval_kd.teachers.comparing.conclude import (
    PairPreferences,
    conclude_pairs,
    latest_strategies,
)
from retrieval_kd.teachers.score import Candidates, scores_of

Qrels = Mapping[str, Mapping[str, int]]


def stored_scores(
    collection: Collection,
    queries: Mapping[str, str],
    store_path: Path,
    teachers: Sequence[str],
    candidates: Candidates | None,
    drops: Drops,
    qrels: Qrels | None = None,
) -> list[dict[str, dict[str, float]]]:
    """For each teacher: query ID → document ID → raw score.

    Only answers about the texts that the collection has now are given; others are counted.

    Args:
        teachers: names or fingerprints; empty: the store's only teacher. Of one that compared
            documents, with `?aggregate=NAME` if not by default, see `conclude.conclude_scores`.
        candidates: which pairs are wanted; none: all that the store knows of these queries.
        qrels: relevant documents that are no candidates are given too, where they were scored.

    Raises:
        InputError: a teacher is unknown, or knows nothing of these queries.
    """
    store = ScoreStore(store_path)
    named = [name.partition("?aggregate=") for name in teachers]
    keys = [store.resolve(name) for name, _, _ in named] or [store.only()]
    aggregations = [how or None for _, _, how in named] or [None]
    found = []
    for key, aggregate in zip(keys, aggregations, strict=True):
        wanted = candidates
        if wanted is None:
            wanted = known_pairs(collection, queries, store, key, drops)
        asked = with_relevant(wanted, qrels or {}, collection.documents)
        scores = scores_of(collection, queries, asked, store, key, aggregate)
        if not scores:
            raise InputError(
                f"teacher {key.model} has scored none of these queries' documents",
                file=store_path,
                remedy="run `rkd score` with candidates of this collection and split",
            )
        lost = sum(d not in scores.get(query, {}) for query, ids in wanted.items() for d in ids)
        if lost:
            drops.add(
                f"pair without an answer of {key.model} about its present texts",
                next(iter(wanted)),
                lost,
            )
        found.append(scores)
    return found


def stored_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    store_path: Path,
    teacher: str,
    candidates: Mapping[str, Mapping[str, float]],
    qrels: Qrels,
) -> dict[str, PairPreferences]:
    """What a pairwise teacher answered about two candidates of a query at a time.

    Args:
        teacher: its name or fingerprint.
        qrels: relevant documents that are no candidates are compared too, where they were.

    Raises:
        InputError: the teacher is unknown, or was not asked about pairs.
    """
    store = ScoreStore(store_path)
    key = store.resolve(teacher)
    given = {query: found for query, found in candidates.items() if query in queries}
    wanted = with_relevant(given, qrels, collection.documents)
    return conclude_pairs(collection, queries, wanted, AnswerStore(store.folder(key), key))


def known_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    store: ScoreStore,
    key: TeacherKey,
    drops: Drops,
) -> dict[str, list[str]]:
    """The pairs of some queries that a teacher was asked about.

    A query counts by its text: the store may know it under the ID of another with the same one.
    """
    same: dict[str, list[str]] = {}
    for id, text in queries.items():
        same.setdefault(query_digest(text), []).append(id)
    if not key.is_pointwise:
        rows_of = latest_strategies(AnswerStore(store.folder(key), key))
        asked = ((row.query_id, row.query_digest, id) for row in rows_of for id in row.document_ids)
    else:
        table = store.read(key)
        names = ("query_id", "query_digest", "document_id")
        rows = zip(*(table[name].to_pylist() for name in names), strict=True)
        asked = ((query, digest.hex(), document) for query, digest, document in rows)
    ids = ((id, document) for query, text, document in asked for id in same.get(text, [query]))
    return _present(collection, queries, ids, drops)


def _present(
    collection: Collection,
    queries: Mapping[str, str],
    ids: Iterable[tuple[str, str]],
    drops: Drops,
) -> dict[str, list[str]]:
    """Of pairs of a query's and a document's ID, those that the queries and the collection have."""
    pairs: dict[str, list[str]] = {}
    for query, document in ids:
        if query not in queries:
            continue
        if document in collection.documents:
            pairs.setdefault(query, []).append(document)
        else:
            drops.add("stored score of a document that the collection lacks", document)
    return {query: list(np.unique(listed).tolist()) for query, listed in pairs.items()}
