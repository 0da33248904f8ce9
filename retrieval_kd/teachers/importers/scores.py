"""Import of published scores: look up texts, drop duplicates, refuse ranks, and store."""

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
from retrieval_kd.store.digests import (
    digests_to_words,
    document_digest,
    id_digest,
    query_digest,
)
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.pair_index import PairIndex, first_of_each, pair_keys
from retrieval_kd.store.scores import ScoreStore, ScoreWriter
from retrieval_kd.teachers.importers.match import Matcher, imported_key
from retrieval_kd.teachers.importers.records import ScoredPair
from retrieval_kd.teachers.importers.score_files import reader

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection

BATCH = 50_000  # pairs stored at a time
DigestOf = Callable[[str], str | None]


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Args:
        stored: new pairs.
        known: pairs given twice or stored before; the first score counts.
        drops: what was left out or corrected.
    """

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
    """Store the scores of a published file under a teacher called `model`.

    With a collection, scores belong to its texts, and pairs whose IDs it lacks are dropped and
    counted. Without one, scores are stored by ID and cannot be found by text. Importing a file
    again adds nothing, so an interrupted import can be repeated.

    Raises:
        InputError: the file is damaged, contains no scores, or shares no ID with the collection.
    """
    path, reading = Path(file), Reading()
    key = imported_key("pointwise", model)
    name, importer = reader(path, format)
    batches = _Batches(store, key, collection, reading.drops)
    texts = "unknown" if collection is None else "known"
    with progress.bar(f"importing {path.name}", path.stat().st_size) as progress_bar:
        reading.advance = progress_bar.advance
        pairs = _found(importer(path, reading), collection, path, reading.drops)
        with store.writer(key, texts=texts) as writer:
            first = True
            while batch := list(itertools.islice(pairs, BATCH)):
                if first and not allow_ranks and are_ranks(batch):
                    raise InputError(
                        "every query has the very same scores: they are ranks written as scores",
                        file=path,
                        remedy="import the teacher's own scores; if these are, add --allow-ranks",
                    )
                if first and all(pair.judged and pair.score.is_integer() for pair in batch):
                    raise InputError(
                        "judgments (qrels), not a teacher's scores",
                        file=path,
                        remedy="if a teacher gave them, name the fields query_id, document_id and "
                        "score",
                    )
                first = False
                batches.add(batch, writer)
    if batches.stored + batches.known == 0:
        drops = f" ({'; '.join(reading.drops.summary())})" if reading.drops.counts else ""
        remedy = "check that the file and the collection are of the same dataset"
        raise InputError(f"nothing to import{drops}", file=path, remedy=remedy)
    return Imported(key, name, batches.stored, batches.known, reading.drops)


def _found(
    pairs: Iterator[ScoredPair], collection: Collection | None, path: Path, drops: Drops
) -> Iterator[ScoredPair]:
    """Give pairs that come with texts the IDs that these texts have in the collection."""
    matcher = None if collection is None else Matcher(collection)
    for pair in pairs:
        if pair.query is None and not pair.document:
            yield pair
        elif matcher is None:
            if not pair.query_id or not pair.document_id:
                problem = "texts without the IDs of their query and document"
                remedy = "add --collection, in which the texts are found"
                raise InputError(problem, file=path, line=pair.line, remedy=remedy)
            yield pair
        else:
            query = matcher.query(pair.query_id or None, pair.query)
            forms = (matcher.document(pair.document_id or None, t) for t in pair.document or [None])
            document = next(filter(None, forms), None)
            if query is None or document is None:
                noun = "query" if query is None else "document"
                drops.add(f"{noun} text not in the collection", f"line {pair.line}")
            else:
                yield pair._replace(query_id=query, document_id=document.id)


class _Batches:
    """Looks up the texts of pairs of IDs and stores the new pairs."""

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
        exact = np.array([pair.score for pair in kept], dtype=np.float64)
        scores = exact.astype(np.float32)
        for row in np.flatnonzero((scores == 0) & (exact != 0)):
            example = f"{kept[row].score}, line {kept[row].line}"
            self._drops.add("score too small for 32 bits, stored as 0", example)
        keys = pair_keys(*map(digests_to_words, (queries, documents)))
        stored = self._store.lookup(self._key, queries, documents)
        earlier = np.where(np.isnan(stored), self._seen.lookup(keys), stored)
        first = np.zeros(len(kept), dtype=bool)
        first[first_of_each(keys)] = True
        new = first & np.isnan(earlier)
        self._seen.add(keys, scores)
        final = np.where(np.isnan(stored), self._seen.lookup(keys), stored)
        for row in np.flatnonzero(final != scores):
            example = f"{kept[row].query_id} {kept[row].document_id}, line {kept[row].line}"
            self._drops.add("pair given again with a different score; the first counts", example)
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


def _digesters(collection: Collection | None) -> tuple[DigestOf, DigestOf]:
    """Query ID → digest and document ID → digest; None for an ID the collection lacks."""
    if collection is None:
        by_id = lru_cache(1 << 20)(id_digest)
        return by_id, by_id
    queries, documents = collection.queries, collection.documents

    def of_query(id: str) -> str | None:
        return query_digest(queries[id].full) if id in queries else None

    def of_document(id: str) -> str | None:
        if id not in documents:
            return None
        document = documents[id]
        return document_digest(document.title, document.text)

    return lru_cache(1 << 16)(of_query), lru_cache(1 << 20)(of_document)


def are_ranks(batch: list[ScoredPair]) -> bool:
    """Whether the queries' scores look like ranks.

    They do if all score lists of three or more are beginnings of the longest one, or all are ends
    of it. Ranks do not repeat, but labels such as 1, 0, 0 do.

    Example:
        >>> ranked = [ScoredPair(q, d, 1 / (r + 1), 1) for q in "ab" for r, d in enumerate("xyz")]
        >>> are_ranks(ranked + [ScoredPair("c", "x", 1.0, 1)])
        True
    """
    scores: dict[str, list[float]] = {}
    for pair in batch:
        scores.setdefault(pair.query_id, []).append(pair.score)
    if len(batch) == BATCH:
        scores.pop(batch[-1].query_id)  # may be incomplete
    lists = sorted((sorted(s, reverse=True) for s in scores.values() if len(s) >= 3), key=len)
    if len(lists) < 2:
        return False
    longest = lists[-1]
    if len(set(longest)) < len(longest):
        return False
    from_top = all(short == longest[: len(short)] for short in lists)
    return from_top or all(short == longest[-len(short) :] for short in lists)
