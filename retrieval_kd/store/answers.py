"""The store of a comparing teacher's answers: its folder of the score store, read and indexed.

Answers are looked up by the digests of the query and of the documents in the order shown, never by
ID. The first answer to a request counts. A row is either an answer or a strategy row: the
candidates that a strategy started from. With both kinds, a strategy's conclusion can be computed
again from the files alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.shards import ShardWriter, read_shard, shard_paths, write_shard

Shown = tuple[str, ...]  # digests of documents, in the order shown
SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("document_ids", pa.list_(pa.string())),  # in the order shown; of a strategy, all
        ("query_digest", pa.binary(16)),
        ("document_digests", pa.binary()),  # 16 bytes each, in the same order
        ("text", pa.string()),  # what the model wrote, or the strategy's spec
        ("logs", pa.list_(pa.float32())),
        ("log_odds", pa.float32()),
        ("order", pa.list_(pa.int16())),
        ("status", pa.string()),
    ]
)
STRATEGY_STATUS = "listed"  # marks a strategy row
STATUSES = ("ok", "repaired", "unparsable", STRATEGY_STATUS)


@dataclass(frozen=True)
class Row:
    """An answer or, if `answer` is None, a strategy and the candidates it started from."""

    query_id: str
    document_ids: tuple[str, ...]
    query_digest: str
    document_digests: tuple[str, ...]
    answer: Answer | None = None
    strategy: str = ""


def as_stored(answer: Answer) -> Answer:
    """Round the numbers to the 32 bits that are stored, so that a resumed run decides the same.

    Example:
        >>> as_stored(Answer(log_odds=0.1)).log_odds
        0.10000000149011612
    """
    logs = None if answer.logs is None else tuple(float(np.float32(x)) for x in answer.logs)
    odds = None if answer.log_odds is None else float(np.float32(answer.log_odds))
    return replace(answer, logs=logs, log_odds=odds)


def read_answers(path: Path) -> pa.Table:
    """Read a shard of answers after checking its bytes against its name."""
    return read_shard(path, schema=SCHEMA)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Convert rows to the table of a shard."""
    return pa.Table.from_pylist([_record(row) for row in rows], schema=SCHEMA)


def to_rows(table: pa.Table) -> list[Row]:
    """Convert the table of a shard to rows."""
    return [_row(record) for record in table.to_pylist()]


def _record(row: Row) -> dict[str, Any]:
    answer = row.answer
    return {
        "query_id": row.query_id,
        "document_ids": list(row.document_ids),
        "query_digest": bytes.fromhex(row.query_digest),
        "document_digests": bytes.fromhex("".join(row.document_digests)),
        "text": row.strategy if answer is None else answer.text,
        "logs": None if answer is None or answer.logs is None else list(answer.logs),
        "log_odds": None if answer is None else answer.log_odds,
        "order": None if answer is None or answer.order is None else list(answer.order),
        "status": STRATEGY_STATUS if answer is None else answer.status,
    }


def _row(record: dict[str, Any]) -> Row:
    data: bytes = record["document_digests"]
    is_strategy = record["status"] == STRATEGY_STATUS
    return Row(
        record["query_id"],
        tuple(record["document_ids"]),
        record["query_digest"].hex(),
        tuple(data[at : at + 16].hex() for at in range(0, len(data), 16)),
        None if is_strategy else _answer(record),
        record["text"] if is_strategy else "",
    )


def _answer(record: dict[str, Any]) -> Answer:
    logs, order = record["logs"], record["order"]
    return Answer(
        record["text"],
        None if logs is None else tuple(logs),
        record["log_odds"],
        None if order is None else tuple(order),
        record["status"],
    )


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
        >>> from retrieval_kd.files import digest_text
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

    def answered_ids(self) -> set[tuple[str, tuple[str, ...]]]:
        """The IDs of all answered requests, whatever the texts were at the time."""
        return {(row.query_id, row.document_ids) for row in self.rows() if row.answer}

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


class AnswerWriter(ShardWriter):
    """Writes a comparing teacher's answers and strategy rows."""

    def __init__(
        self, folder: Path, key: TeacherKey, shard_rows: int = 5_000, most_seconds: float = 30
    ) -> None:
        super().__init__(folder, key.about())
        self._rows, self._seconds = shard_rows, most_seconds
        self._since = time.monotonic()
        self.waiting: list[Row] = []  # not yet in a shard

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows, and write a shard if it is due."""
        self.waiting += rows
        waited = time.monotonic() - self._since
        if len(self.waiting) >= self._rows or waited >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write all waiting rows."""
        if self.waiting:
            write_shard(self._folder, self._about, to_table(self.waiting))
        self.waiting, self._since = [], time.monotonic()
