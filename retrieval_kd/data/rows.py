"""The types that all readers of collections share: rows, judgments, readers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from retrieval_kd.errors import Drops, InputError

BROKEN = re.compile("[\ud800-\udfff\0]")  # half characters, and the zero byte

Qrels = dict[str, dict[str, int]]  # query ID → document ID → gain


class Row(NamedTuple):
    """One document or query, with the file and line it came from (for messages)."""

    id: str
    title: str
    text: str
    file: str = ""
    line: int = 0


class Judgment(NamedTuple):
    """One line of a qrels file: how relevant a document is to a query."""

    query_id: str
    document_id: str
    gain: int
    file: str = ""
    line: int = 0


@dataclass
class Reading:
    """Collects what a reader drops, and receives its progress."""

    drops: Drops = field(default_factory=Drops)
    advance: Callable[[int], None] = lambda amount: None  # without a progress bar


Rows = Callable[[Reading], Iterator[Row]]
Judgments = Callable[[Reading], Iterator[Judgment]]


@dataclass(frozen=True)
class Reader:
    """A recognised source and how to stream it; nothing has been read yet.

    `key` is JSON-able and changes when the source changes. `total` is the length of the documents'
    progress bar, in the unit by which `documents` advances it.
    """

    name: str
    key: list[Any]
    total: int
    documents: Rows
    queries: Rows
    judgments: dict[str, Judgments]
    ignored: Sequence[str] = ()  # files that are not read


def check_id(id: str, noun: str, file: str | None = None, line: int | None = None) -> None:
    """Refuse an empty ID, or one with what files cannot carry, such as whitespace.

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
    if BROKEN.search(id):
        problem = f"{noun} ID with half a character or a zero byte"
        remedy = "write it in whole characters, here and in the qrels"
        raise InputError(problem, file=file, line=line, id=ascii(id), remedy=remedy)
    if id.split() != [id]:
        remedy = (
            "replace the whitespace in the ID, here and in the qrels; TREC files cannot carry it"
        )
        problem = f"{noun} ID with whitespace"
        raise InputError(problem, file=file, line=line, id=repr(id), remedy=remedy)
