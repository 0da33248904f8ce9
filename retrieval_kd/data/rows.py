"""What every reader of a collection hands over: rows, judgments and where each was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from retrieval_kd.errors import Drops, InputError

Qrels = dict[str, dict[str, int]]  # query ID → document ID → gain


class Row(NamedTuple):
    """One document or query, with the file and line it came from (for messages)."""

    id: str
    title: str
    text: str
    file: str = ""
    line: int = 0


class Judgment(NamedTuple):
    """One line of a qrels file: how relevant the document is to the query."""

    query_id: str
    document_id: str
    gain: int
    file: str = ""
    line: int = 0


def _ignore(amount: int) -> None:
    """No progress bar is shown."""


@dataclass
class Reading:
    """What a reader reports to while it reads: what was dropped, and how far it has come."""

    drops: Drops = field(default_factory=Drops)
    advance: Callable[[int], None] = _ignore


Rows = Callable[[Reading], Iterator[Row]]
Judgments = Callable[[Reading], Iterator[Judgment]]


@dataclass(frozen=True)
class Reader:
    """A source that was recognised, and how to stream it; nothing has been read yet.

    `key` is JSON-able and changes when the source does; `total` is the end of the progress bar
    over the documents, in whatever unit `documents` advances it by.
    """

    name: str
    key: list[Any]
    total: int
    documents: Rows
    queries: Rows
    judgments: dict[str, Judgments]


def check_id(id: str, noun: str, file: str | None = None, line: int | None = None) -> None:
    """Refuse an ID that is empty or holds whitespace: TREC files could not carry it.

    Example:
        >>> check_id("doc 7", "document", "corpus.jsonl", 3)
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: corpus.jsonl:3: document ID with whitespace (id 'doc 7'). \
To fix: replace the whitespace in the ID, here and in the qrels; TREC files cannot carry it.
    """
    if not id:
        remedy = "give every line an ID of at least one character"
        raise InputError(f"empty {noun} ID", file=file, line=line, remedy=remedy)
    if id.split() != [id]:
        remedy = (
            "replace the whitespace in the ID, here and in the qrels; TREC files cannot carry it"
        )
        problem = f"{noun} ID with whitespace"
        raise InputError(problem, file=file, line=line, id=repr(id), remedy=remedy)
