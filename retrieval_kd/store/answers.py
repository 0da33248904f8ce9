"""What pairwise and listwise teachers answered, in the score store's folder of each.

Answers are found by the digests of the query and of the documents in the order they were shown,
never by ID; the first answer to a question counts. `answer_files.py` says what a row is,
`answer_writer.py` adds them, `answer_facts.py` counts and checks them.
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

Shown = tuple[str, ...]  # digests of documents, in the order they were shown


@dataclass
class Known:
    """What the store has of one query: answers, and what strategies were given, the latest last."""

    answers: dict[Shown, Answer] = field(default_factory=dict)
    listings: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        if row.answer is not None:
            self.answers.setdefault(row.document_digests, row.answer)
            return
        self.listings = [old for old in self.listings if not same_listing(old, row)] + [row]


def same_listing(one: Row, other: Row) -> bool:
    """Whether two lists give the same candidates, in the same order, to the same strategy."""
    return (one.document_digests, one.strategy) == (other.document_digests, other.strategy)


class AnswerStore:
    """One teacher's answers.

    Example:
        >>> import tempfile
        >>> key = TeacherKey("pairwise", "judge", digest="ab12")
        >>> answers = AnswerStore(Path(tempfile.mkdtemp()) / key.fingerprint, key)
        >>> query, one, two = (digest_text(text) for text in ("who?", "me", "you"))
        >>> with answers.writer() as writer:
        ...     writer.add([Row("q", ("d1", "d2"), query, (one, two), Answer(log_odds=1.5))])
        >>> answers.known(query).answers[one, two].log_odds
        1.5
        >>> len(answers), (two, one) in answers.known(query).answers
        (1, False)
    """

    def __init__(self, folder: Path, key: TeacherKey) -> None:
        if key.gives_scores:
            raise InputError("this teacher scores documents one by one", id=key.model)
        self.folder, self.key = folder, key
        self._writer: AnswerWriter | None = None
        self._seen: list[Path] = []
        self._tables: list[pa.Table] = []
        self._places: dict[bytes, list[tuple[int, int]]] = {}  # query → table, row

    def __len__(self) -> int:
        """How many different questions were answered."""
        return sum(1 for row in self.rows() if row.answer is not None)

    def writer(self, shard_rows: int = 5_000, most_seconds: float = 30) -> AnswerWriter:
        """To add answers; `known` sees at once what is added."""
        self._writer = AnswerWriter(self.folder, self.key, shard_rows, most_seconds)
        return self._writer

    def known(self, query_digest: str) -> Known:
        """All answers about a query."""
        self._refresh()
        found = Known()
        wanted: dict[int, list[int]] = defaultdict(list)
        for table, row in self._places.get(bytes.fromhex(query_digest), []):
            wanted[table].append(row)
        for table, rows in wanted.items():
            for one in to_rows(self._tables[table].take(rows)):
                found.add(one)
        for one in self._writer.waiting if self._writer else []:
            if one.query_digest == query_digest:
                found.add(one)
        return found

    def queries(self) -> list[str]:
        """Digests of the queries that anything is known of, in the order they were asked."""
        self._refresh()
        return [digest.hex() for digest in self._places]

    def rows(self) -> Iterator[Row]:
        """Every question's first answer and every list once, in the order they were given."""
        seen = set()
        for path in shard_paths(self.folder):
            for row in to_rows(read_answers(path)):
                who = (row.query_digest, row.document_digests, row.answer is None, row.strategy)
                if who not in seen:
                    seen.add(who)
                    yield row

    def id_digests(self) -> set[str]:
        """Which questions were asked, by their IDs, whatever the texts then were."""
        return {asked_by_id(r.query_id, r.document_ids) for r in self.rows() if r.answer}

    def _refresh(self) -> None:
        """Take in shards that are new; start over if an earlier one came or went."""
        there = shard_paths(self.folder)
        if there[: len(self._seen)] != self._seen:
            self._seen, self._tables, self._places = [], [], {}
        for path in there[len(self._seen) :]:
            table = read_answers(path)
            for row, digest in enumerate(table["query_digest"].to_pylist()):
                self._places.setdefault(digest, []).append((len(self._tables), row))
            self._tables.append(table)
        self._seen = there


def asked_by_id(query_id: str, document_ids: tuple[str, ...]) -> str:
    """A digest of a question's IDs."""
    return digest_text(query_id, *document_ids)
