"""The store of a comparing teacher's answers: its folder of the score store, read and indexed.

Answers are looked up by the digests of the query and of the documents in the order shown, never by
ID. The first answer to a request counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.store.answer_rows import Row, read_answers, to_rows
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.shards import shard_paths
from retrieval_kd.store.writer import AnswerWriter

Shown = tuple[str, ...]  # digests of documents, in the order shown


@dataclass
class QueryAnswers:
    """The stored answers about one query, and the strategies that were run, the latest last."""

    answers: dict[Shown, Answer] = field(default_factory=dict)
    strategies: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        if row.answer is not None:
            self.answers.setdefault(row.document_digests, row.answer)
        else:
            others = [old for old in self.strategies if not same_strategy(old, row)]
            self.strategies = [*others, row]


def same_strategy(left: Row, right: Row) -> bool:
    """Whether two rows are of the same strategy with the same candidates in the same order."""
    return (left.document_digests, left.strategy) == (right.document_digests, right.strategy)


class AnswerStore:
    """One teacher's stored answers.

    Example:
        >>> import tempfile
        >>> key = TeacherKey("pairwise", "judge", digest="ab12")
        >>> answers = AnswerStore(Path(tempfile.mkdtemp()) / key.fingerprint, key)
        >>> query, one, two = (digest_text(text) for text in ("who?", "me", "you"))
        >>> with answers.writer() as writer:
        ...     writer.add([Row("q", ("d1", "d2"), query, (one, two), Answer(log_odds=1.5))])
        >>> answers.of_query(query).answers[one, two].log_odds
        1.5
        >>> len(answers), (two, one) in answers.of_query(query).answers
        (1, False)
    """

    def __init__(self, folder: Path, key: TeacherKey) -> None:
        if key.is_pointwise:
            raise InputError("this teacher scores documents one by one", id=key.model)
        self.folder, self.key = folder, key
        self._writer: AnswerWriter | None = None
        self._paths: list[Path] = []  # shards read
        self._tables: list[pa.Table] = []
        self._places: dict[bytes, list[tuple[int, int]]] = {}  # query → (table, row)

    def __len__(self) -> int:
        """Number of different requests that were answered."""
        return sum(1 for row in self.rows() if row.answer is not None)

    def writer(self, shard_rows: int = 5_000, most_seconds: float = 30) -> AnswerWriter:
        """Open a writer; `of_query` sees rows as soon as they are added."""
        self._writer = AnswerWriter(self.folder, self.key, shard_rows, most_seconds)
        return self._writer

    def of_query(self, query_digest: str) -> QueryAnswers:
        """Look up all answers about a query."""
        self._refresh()
        answers = QueryAnswers()
        rows_of: dict[int, list[int]] = defaultdict(list)
        for table, row in self._places.get(bytes.fromhex(query_digest), []):
            rows_of[table].append(row)
        for table, rows in rows_of.items():
            for stored in to_rows(self._tables[table].take(rows)):
                answers.add(stored)
        for waiting in self._writer.waiting if self._writer else []:
            if waiting.query_digest == query_digest:
                answers.add(waiting)
        return answers

    def queries(self) -> list[str]:
        """Digests of all stored queries, in the order they were first stored."""
        self._refresh()
        return [digest.hex() for digest in self._places]

    def rows(self) -> Iterator[Row]:
        """Each request's first answer and each strategy row once, in the order they were stored."""
        seen = set()
        for path in shard_paths(self.folder):
            for row in to_rows(read_answers(path)):
                is_strategy = row.answer is None
                identity = (row.query_digest, row.document_digests, is_strategy, row.strategy)
                if identity not in seen:
                    seen.add(identity)
                    yield row

    def id_digests(self) -> set[str]:
        """Digests of the IDs of all answered requests, whatever the texts were at the time."""
        return {digest_ids(r.query_id, r.document_ids) for r in self.rows() if r.answer}

    def _refresh(self) -> None:
        """Read new shards; read all again if an earlier one appeared or disappeared."""
        paths = shard_paths(self.folder)
        if paths[: len(self._paths)] != self._paths:
            self._paths, self._tables, self._places = [], [], {}
        for path in paths[len(self._paths) :]:
            table = read_answers(path)
            for row, digest in enumerate(table["query_digest"].to_pylist()):
                self._places.setdefault(digest, []).append((len(self._tables), row))
            self._tables.append(table)
        self._paths = paths


def digest_ids(query_id: str, document_ids: tuple[str, ...]) -> str:
    """Digest of the IDs of a request."""
    return digest_text(query_id, *document_ids)
