"""The scoring stage: ask a teacher what the store does not know yet, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.progress import bar
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import document_digest, hash_ids, query_digest
from retrieval_kd.store.requests import ComparingTeacher, Strategy
from retrieval_kd.store.scores import ScoreStore, TeacherKey
from retrieval_kd.store.usage import ScoreReport
from retrieval_kd.teachers.comparing.conclude import conclude_scores
from retrieval_kd.teachers.comparing.run_strategies import run_strategies
from retrieval_kd.teachers.comparing.strategy_run import Scores
from retrieval_kd.teachers.open import Teacher, open_teacher

__all__ = ["Candidates", "ScoreReport", "Teacher", "open_teacher", "score", "scores_of"]

Candidates = Mapping[str, Sequence[str]]  # query ID → document IDs, in first-stage order


def score(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    teacher: Teacher | ComparingTeacher,
    store: ScoreStore,
    *,
    shard_pairs: int = 2_048,
    scores: Scores | None = None,
) -> ScoreReport:
    """Score every (query, candidate) pair that `store` lacks, or ask what the teacher asks of them.

    After `shard_pairs` pairs a shard is on disk; a job killed at any moment loses at most the shard
    it was in, and asks for none of the others again.

    Args:
        queries: ID → text.
        candidates: query ID → document IDs, for instance `run.results`.
        scores: by which a strategy chooses what is asked; none: those of the teacher in `store`
            that it names.

    Raises:
        InputError: a candidate's query or document is unknown, or the teacher gave NaN.
    """
    if not teacher.key.is_pointwise:
        return _ask(collection, queries, candidates, cast(ComparingTeacher, teacher), store, scores)
    teacher = cast(Teacher, teacher)
    started = time.monotonic()
    key = teacher.key
    report = ScoreReport(key.model, key.fingerprint, sum(map(len, candidates.values())))
    earlier = store.id_pairs(key)
    with bar(f"scoring with {key.model}", report.pairs) as progress, store.writer(key) as writer:
        for chunk in _chunks(candidates, shard_pairs):
            batch = _look_up_texts(collection, queries, chunk)
            known = ~np.isnan(store.lookup(key, batch.query_digests, batch.document_digests))
            if not known.all():
                todo = batch.select(_first_of_each(batch, np.flatnonzero(~known)))
                given = teacher.score(todo.queries, todo.documents)
                answered = ~np.ma.getmaskarray(given)
                report.missing += int((~answered).sum())
                given = np.ma.getdata(given)[answered]
                todo = todo.select(np.flatnonzero(answered))
                document_ids = [d.id for d in todo.documents]
                report.stale += int(np.isin(hash_ids(todo.query_ids, document_ids), earlier).sum())
                writer.add(
                    todo.query_ids, document_ids, todo.query_digests, todo.document_digests, given
                )
                writer.flush()
                report.scored += len(given)
            progress.advance(len(chunk))
    report.reused = report.pairs - report.scored - report.missing
    report.seconds = time.monotonic() - started
    return report


def _ask(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    teacher: ComparingTeacher,
    store: ScoreStore,
    scores: Scores | None,
) -> ScoreReport:
    if scores is None and teacher.by is not None:
        scores = scores_of(collection, queries, candidates, store, store.resolve(teacher.by))
    return run_strategies(collection, queries, candidates, teacher, store, scores=scores)


@dataclass(frozen=True)
class _Batch:
    query_ids: list[str]
    queries: list[str]
    documents: list[Document]
    query_digests: list[str]
    document_digests: list[str]

    def select(self, rows: np.ndarray) -> _Batch:
        picked = [int(row) for row in rows]
        return _Batch(
            [self.query_ids[i] for i in picked],
            [self.queries[i] for i in picked],
            [self.documents[i] for i in picked],
            [self.query_digests[i] for i in picked],
            [self.document_digests[i] for i in picked],
        )


def _first_of_each(batch: _Batch, rows: np.ndarray) -> np.ndarray:
    """The rows without those whose texts are an earlier row's: they are asked once."""
    first = {(batch.query_digests[i], batch.document_digests[i]): i for i in reversed(rows)}
    return np.array(sorted(first.values()), dtype=np.int64)


def _chunks(candidates: Candidates, size: int) -> Iterator[list[tuple[str, str]]]:
    chunk: list[tuple[str, str]] = []
    for query_id, ids in candidates.items():
        for id in ids:
            chunk.append((query_id, id))
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _look_up_texts(
    collection: Collection, queries: Mapping[str, str], pairs: list[tuple[str, str]]
) -> _Batch:
    documents = {}
    for query_id, id in pairs:
        if query_id not in queries:
            raise InputError(
                "the candidates name a query that this collection or split does not have",
                id=query_id,
                remedy="score the run with the collection and split it was retrieved from",
            )
        if id not in documents:
            documents[id] = collection.documents[id]
    query_digests = {q: query_digest(queries[q]) for q in dict.fromkeys(q for q, _ in pairs)}
    digests = {id: document_digest(d.title, d.text) for id, d in documents.items()}
    return _Batch(
        [q for q, _ in pairs],
        [queries[q] for q, _ in pairs],
        [documents[d] for _, d in pairs],
        [query_digests[q] for q, _ in pairs],
        [digests[d] for _, d in pairs],
    )


def scores_of(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    store: ScoreStore,
    key: TeacherKey,
    aggregate: str | None = None,
    *,
    strategy: Strategy | None = None,
    by: Scores | None = None,
) -> dict[str, dict[str, float]]:
    """What the store knows of the candidates: query ID → document ID → raw score.

    Answers about pairs and lists become scores by `aggregate`, those of one `strategy` or all, see
    `conclude.conclude_scores`.
    """
    if not key.is_pointwise:
        told = (AnswerStore(store.folder(key), key), aggregate)
        return conclude_scores(collection, queries, candidates, *told, strategy=strategy, by=by)
    if aggregate is not None:
        raise InputError(
            f"{aggregate!r} is for pairs or lists, this teacher scores one by one", id=key.model
        )
    found: dict[str, dict[str, float]] = {}
    for chunk in _chunks(candidates, 100_000):
        batch = _look_up_texts(collection, queries, chunk)
        values = store.lookup(key, batch.query_digests, batch.document_digests)
        for (query_id, id), value in zip(chunk, values.tolist(), strict=True):
            if value == value:  # not NaN
                found.setdefault(query_id, {})[id] = value
    return found
