"""Read stored scores and comparisons of a collection's queries, for training and diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.runs import with_relevant
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.comparing.conclude import (
    PairPreferences,
    conclude_pairs,
    latest_strategies,
)
from retrieval_kd.teachers.score import Candidates, scores_of


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

    Scores of texts that have changed in the collection are left out and counted in `drops`.

    Args:
        teachers: names or fingerprints; by default the store's only teacher. `?aggregate=NAME`
            after a comparing teacher's name chooses how comparisons become scores, see
            `conclude.conclude_scores`.
        candidates: the pairs to read; by default all stored pairs of these queries.
        qrels: relevant documents outside the candidates are included where they are stored.

    Raises:
        InputError: a teacher is unknown, or has scored none of these queries.
    """
    store = ScoreStore(store_path)
    names = [name.partition("?aggregate=") for name in teachers]
    keys = [store.resolve(name) for name, _, _ in names] or [store.only()]
    aggregations = [how or None for _, _, how in names] or [None]
    all_scores = []
    for key, aggregate in zip(keys, aggregations, strict=True):
        pairs = candidates
        if pairs is None:
            pairs = known_pairs(collection, queries, store, key, drops)
        judged = with_relevant(pairs, qrels or {}, collection.documents)
        scores = scores_of(collection, queries, judged, store, key, aggregate)
        if not scores:
            raise InputError(
                f"teacher {key.model} has scored none of these queries' documents",
                file=store_path,
                remedy="run `rkd score` with candidates of this collection and split",
            )
        missing = sum(d not in scores.get(q, {}) for q, ids in pairs.items() for d in ids)
        if missing:
            drops.add(
                f"pair without an answer of {key.model} about its present texts",
                next(iter(pairs)),
                missing,
            )
        all_scores.append(scores)
    return all_scores


def stored_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    store_path: Path,
    teacher: str,
    candidates: Mapping[str, Mapping[str, float]],
    qrels: Qrels,
) -> dict[str, PairPreferences]:
    """Read a pairwise teacher's comparisons of each query's candidates.

    Args:
        teacher: its name or fingerprint.
        qrels: relevant documents outside the candidates are included where they were compared.
    """
    store = ScoreStore(store_path)
    key = store.resolve(teacher)
    ours = {query: ids for query, ids in candidates.items() if query in queries}
    judged = with_relevant(ours, qrels, collection.documents)
    return conclude_pairs(collection, queries, judged, AnswerStore(store.folder(key), key))


def known_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    store: ScoreStore,
    key: TeacherKey,
    drops: Drops,
) -> dict[str, list[str]]:
    """The stored pairs of these queries: query ID → document IDs.

    Queries are matched by text: the store may have the text under another query's ID.
    """
    ids_of_text: dict[str, list[str]] = {}
    for id, text in queries.items():
        ids_of_text.setdefault(query_digest(text), []).append(id)
    if not key.is_pointwise:
        answers = AnswerStore(store.folder(key), key)
        lists = latest_strategies(answers, answers.queries())
        stored = ((row.query_id, row.query_digest, id) for row in lists for id in row.document_ids)
    else:
        table = store.read(key)
        names = ("query_id", "query_digest", "document_id")
        rows = zip(*(table[name].to_pylist() for name in names), strict=True)
        stored = ((query, digest.hex(), document) for query, digest, document in rows)
    pairs: dict[str, list[str]] = {}
    for stored_query, text, document in stored:
        for query in ids_of_text.get(text, [stored_query]):
            if query not in queries:
                continue
            if document in collection.documents:
                pairs.setdefault(query, []).append(document)
            else:
                drops.add("stored score of a document that the collection lacks", document)
    return {query: list(np.unique(ids).tolist()) for query, ids in pairs.items()}
