"""Storing what an importer reads: texts resolved, duplicates counted, ranks told from scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval_kd import progress
from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store import shards as store_files
from retrieval_kd.store.index import PairIndex, first_of_each, pair_keys
from retrieval_kd.store.scores import ScoreStore, ScoreWriter, TeacherKey
from retrieval_kd.teachers.importers.detect import reader
from retrieval_kd.teachers.importers.pairs import ScoredPair

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection

BATCH = 50_000  # pairs looked at together
Digest = Callable[[str], str | None]


@dataclass(frozen=True)
class Imported:
    """What came of an import: pairs stored now, pairs known before, and what was left out."""

    key: TeacherKey
    format: str
    stored: int
    known: int
    drops: Drops


def import_scores(
    file: str | Path,
    store: ScoreStore,
    model: str,
    *,
    collection: Collection | None = None,
    format: str | None = None,
    allow_ranks: bool = False,
) -> Imported:
    """Store a published file's scores as those of a teacher called `model`.

    With a collection the scores belong to its texts; pairs whose IDs it does not hold are dropped
    and counted. Without, they are stored by ID, and nothing finds them by text. Importing a file
    twice adds nothing; an import that broke off goes on where it stopped.

    Raises:
        InputError: the file is broken, holds no scores, or shares no ID with the collection.
    """
    path, reading = Path(file), Reading()
    name, importer = reader(path, format)
    key = TeacherKey("pointwise", model, digest=f"imported:{model}")
    batches = _Batches(store, key, collection, reading.drops)
    texts = "unknown" if collection is None else "known"
    with progress.bar(f"importing {path.name}", path.stat().st_size) as shown:
        reading.advance = shown.advance
        pairs = importer(path, reading)
        with store.writer(key, texts=texts) as writer:
            for number, batch in enumerate(_batched(pairs)):
                if number == 0 and not allow_ranks and made_of_ranks(batch):
                    raise _ranks(path)
                batches.add(batch, writer)
    if batches.stored + batches.known == 0:
        given = f" ({'; '.join(reading.drops.summary())})" if reading.drops.counts else ""
        remedy = "check that the file and the collection are of the same dataset"
        raise InputError(f"nothing to import{given}", file=path, remedy=remedy)
    return Imported(key, name, batches.stored, batches.known, reading.drops)


def _batched(pairs: Iterator[ScoredPair]) -> Iterator[list[ScoredPair]]:
    while batch := list(itertools.islice(pairs, BATCH)):
        yield batch


class _Batches:
    """Turns pairs by ID into pairs by text, and stores those that are new."""

    def __init__(
        self, store: ScoreStore, key: TeacherKey, collection: Collection | None, drops: Drops
    ) -> None:
        self._store, self._key, self._drops = store, key, drops
        self._query, self._document = _digesters(collection)
        self._seen = PairIndex()
        self.stored = self.known = 0

    def add(self, batch: list[ScoredPair], writer: ScoreWriter) -> None:
        kept, queries, documents = [], [], []
        for pair in batch:
            query, document = self._query(pair.query_id), self._document(pair.document_id)
            if query is None:
                self._drops.add("query ID not in the collection", pair.query_id)
            elif document is None:
                self._drops.add("document ID not in the collection", pair.document_id)
            else:
                kept.append(pair)
                queries.append(query)
                documents.append(document)
        with np.errstate(over="ignore"):  # the writer refuses what does not fit
            scores = np.array([pair.score for pair in kept]).astype(np.float32)
        keys = pair_keys(*map(store_files.digests_to_words, (queries, documents)))
        stored = self._store.lookup(self._key, queries, documents)
        before = np.where(np.isnan(stored), self._seen.lookup(keys), stored)
        first = np.zeros(len(kept), dtype=bool)
        first[first_of_each(keys)] = True
        new = first & np.isnan(before)
        self._seen.add(keys, scores)
        final = np.where(np.isnan(stored), self._seen.lookup(keys), stored)
        for row in np.flatnonzero(final != scores):
            example = f"{kept[row].query_id} {kept[row].document_id}, line {kept[row].line}"
            self._drops.add("pair given again with another score; the first counts", example)
        rows = np.flatnonzero(new).tolist()
        writer.add(
            [kept[row].query_id for row in rows],
            [kept[row].document_id for row in rows],
            [queries[row] for row in rows],
            [documents[row] for row in rows],
            scores[rows],
        )
        self.stored += len(rows)
        self.known += len(kept) - len(rows)


def _digesters(collection: Collection | None) -> tuple[Digest, Digest]:
    """Query ID → digest and document ID → digest; None for an ID the collection lacks."""
    if collection is None:
        by_id = lru_cache(1 << 20)(store_files.id_digest)
        return by_id, by_id
    queries, documents = collection.queries, collection.documents

    def query(id: str) -> str | None:
        return store_files.query_digest(queries[id].full) if id in queries else None

    def document(id: str) -> str | None:
        if id not in documents:
            return None
        found = documents[id]
        return store_files.document_digest(found.title, found.text)

    return lru_cache(1 << 16)(query), lru_cache(1 << 20)(document)


def made_of_ranks(batch: list[ScoredPair]) -> bool:
    """Whether every query has the very same scores, so that they can only stand for ranks.

    Example:
        >>> ranked = [ScoredPair(q, d, 1 / (r + 1), 1) for q in "ab" for r, d in enumerate("xyz")]
        >>> made_of_ranks(ranked + [ScoredPair("c", "x", 1.0, 1)])
        True
    """
    scores: dict[str, list[float]] = {}
    for pair in batch:
        scores.setdefault(pair.query_id, []).append(pair.score)
    if len(batch) == BATCH:
        scores.pop(batch[-1].query_id)  # cut off in the middle
    lists = sorted((sorted(s, reverse=True) for s in scores.values() if len(s) >= 3), key=len)
    if len(lists) < 2:
        return False
    longest = lists[-1]
    from_top = all(short == longest[: len(short)] for short in lists)
    return from_top or all(short == longest[-len(short) :] for short in lists)


def _ranks(path: Path) -> InputError:
    return InputError(
        "every query has the very same scores: they are ranks written as scores",
        file=path,
        remedy="import the teacher's own scores; if these are, add --allow-ranks",
    )
