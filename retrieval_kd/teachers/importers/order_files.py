"""Readers of published orders of passages: RankGPT's records and RankZephyr's conversations.

`orders.py` looks up the texts in a collection and stores the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_kd.data.json_lines import first_value, json_objects
from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers.records import QUERY, to_id

LISTS = ("retrieved_passages", "hits", "candidates", "passages", "documents")
IDS = ("docid", "doc_id", "pid", "passage_id", "docno", "_id", "id")
TEXTS = ("text", "content", "contents", "passage", "segment", "body")
ANSWERS = ("response", "permutation", "answer", "output")
TURNS = ("conversations", "messages", "conversation")
OBJECTS = "write objects {…}; join answers in a file of their own to their passages first"
USER, MODEL = ("human", "user"), ("gpt", "assistant")
QUERY_AT = (
    re.compile(r"Search Query:\s*(.+?)\s*(?=Rank the \d+ passages|\n|$)"),
    re.compile(r"search query:\s*(.+?)\s*(?=\n|$)"),
)
FIRST_PASSAGE = re.compile(r"^\[1\](?!\s*>)", re.MULTILINE)  # but not an example answer
AFTER_LAST = re.compile(r"\n\s*(?:Search Query:|Query:|Rank the \d+ passages)")


@dataclass(frozen=True)
class Passage:
    """A published passage: its ID, its text, or both."""

    id: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class PublishedOrder:
    """A query, the passages that were shown, and the response that orders them."""

    query_id: str | None
    query: str | None
    passages: tuple[Passage, ...]
    response: str
    line: int


def read_orders(path: Path, reading: Reading) -> Iterator[PublishedOrder]:
    """Read the orders of a file of JSON lines or of one JSON list.

    Conversations in an unknown form are dropped and counted.

    Raises:
        InputError: a line is not a JSON object, or lacks a list of passages or an answer.
    """
    for line, record in json_objects(path, reading, OBJECTS):
        turns = first_value(record, TURNS)
        if turns is None:
            yield _record(record, path, line)
            continue
        order = parse_conversation(turns if isinstance(turns, list) else [], line)
        if isinstance(order, str):
            reading.drops.add(order, f"line {line}")
        else:
            yield order


def parse_conversation(turns: Sequence[Any], line: int = 1) -> PublishedOrder | str:
    """Parse the passages `[1]`, `[2]`, … of a conversation and its last answer.

    A conversation that starts counting again shows several lists, but its last answer orders only
    one of them, so it is dropped.

    Returns:
        The order, or the reason for dropping the conversation.

    Example:
        >>> prompt = "Passages:\\n[1] The moon.\\n[2] A violin.\\nSearch Query: tides\\nRank the 2"
        >>> order = parse_conversation([{"from": "human", "value": prompt},
        ...                             {"from": "gpt", "value": "[1] > [2]"}])
        >>> order.query, [passage.text for passage in order.passages], order.response
        ('tides', ['The moon.', 'A violin.'], '[1] > [2]')
    """
    objects = [turn for turn in turns if isinstance(turn, Mapping)]
    texts = [
        (first_value(t, ("from", "role")), first_value(t, ("value", "content"))) for t in objects
    ]
    prompt = "\n".join(str(text) for speaker, text in texts if speaker in USER)
    answers = [str(text) for speaker, text in texts if speaker in MODEL]
    query, passages = _query(prompt), numbered(prompt)
    if not answers or query is None or not passages:
        return "conversation without a query, passages or answer"
    if len(FIRST_PASSAGE.findall(prompt)) > 1:
        return "conversation with several lists of passages"
    return PublishedOrder(None, query, tuple(Passage(None, p) for p in passages), answers[-1], line)


def _query(prompt: str) -> str | None:
    """The query after the passages, or else the one before them."""
    after, before = (pattern.findall(prompt) for pattern in QUERY_AT)
    return after[-1] if after else before[0] if before else None


def numbered(text: str) -> list[str]:
    """The texts after `[1]`, `[2]`, … at the beginnings of lines, in one unbroken count.

    Example:
        >>> numbered("Rank these.\\n[1] one [9] more\\n[2] two\\n\\nSearch Query: x")
        ['one [9] more', 'two']
    """
    starts: list[re.Match[str]] = []
    at = 0
    while match := re.compile(rf"^\[{len(starts) + 1}\]\s*", re.MULTILINE).search(text, at):
        starts.append(match)
        at = match.end()
    ends = [match.start() for match in starts[1:]]
    if starts:
        after = AFTER_LAST.search(text, starts[-1].end())
        ends.append(after.start() if after else len(text))
    return [text[start.end() : end].strip() for start, end in zip(starts, ends, strict=True)]


def _record(record: Mapping[str, Any], path: Path, line: int) -> PublishedOrder:
    entries, answer = first_value(record, LISTS), first_value(record, ANSWERS)
    if not isinstance(entries, list) or answer is None:
        raise InputError(
            "no list of passages, or no answer that puts them in order",
            file=path,
            line=line,
            remedy=f"passages stand in one of {', '.join(LISTS)}, answers in one of "
            f"{', '.join(ANSWERS)}; conversations in {TURNS[0]}",
        )
    query, query_id = record.get("query"), first_value(record, QUERY)
    if isinstance(query, Mapping):
        query_id = first_value(query, QUERY) if query_id is None else query_id
        query = first_value(query, TEXTS)
    passages = tuple(_passage(entry, path, line) for entry in entries)
    return PublishedOrder(
        None if query_id is None else to_id(query_id, "query", path, line),
        None if query is None else str(query),
        passages,
        _response(answer, len(passages), path, line),
        line,
    )


def _passage(entry: Any, path: Path, line: int) -> Passage:
    if isinstance(entry, str):
        return Passage(None, entry)
    if not isinstance(entry, Mapping):
        raise InputError(
            f"{entry!r:.60} is not a passage",
            file=path,
            line=line,
            remedy="write each as a text or as an object with an ID or a text",
        )
    inner = entry.get("doc")
    merged = {**entry, **inner} if isinstance(inner, Mapping) else entry
    id, text, title = first_value(entry, IDS), first_value(merged, TEXTS), merged.get("title")
    if text is not None and title:
        text = f"{title} {text}"
    return Passage(
        None if id is None else to_id(id, "document", path, line),
        None if text is None else str(text),
    )


def _response(answer: Any, count: int, path: Path, line: int) -> str:
    """An answer as text. A list of numbers must clearly count from 0 or from 1."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list) and answer and all(map(_is_place, answer)):
        if 0 in answer and count not in answer:
            return " > ".join(f"[{place + 1}]" for place in answer)
        if 0 not in answer and count in answer:
            return " > ".join(f"[{place}]" for place in answer)
    raise InputError(
        f"{answer!r:.60} is not an order of {count} passages",
        file=path,
        line=line,
        remedy="write it as text such as [2] > [1], or as all numbers from 0, or all from 1",
    )


def _is_place(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 31
