"""Published orders of passages: RankGPT's records, RankZephyr's conversations, a line each.

Nothing is looked up here; `matching.py` finds the texts and `import_orders.py` stores the answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_kd.data.rows import Reading
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers.pairs import to_id
from retrieval_kd.teachers.importers.records import QUERY

LISTS = ("retrieved_passages", "hits", "candidates", "passages", "documents")
IDS = ("docid", "doc_id", "pid", "passage_id", "docno", "_id", "id")
TEXTS = ("text", "content", "contents", "passage", "segment", "body")
ANSWERS = ("response", "permutation", "answer", "output")
TURNS = ("conversations", "messages", "conversation")
ASKING, ANSWERING = ("human", "user"), ("gpt", "assistant")
QUERY_AT = (
    re.compile(r"Search Query:\s*(.+?)\s*(?=Rank the \d+ passages|\n|$)"),
    re.compile(r"search query:\s*(.+?)\s*(?=\n|$)"),
)
FIRST_PASSAGE = re.compile(r"^\[1\](?!\s*>)", re.MULTILINE)  # no example of an answer
AFTER_LAST = re.compile(r"\n\s*(?:Search Query:|Query:|Rank the \d+ passages)")


@dataclass(frozen=True)
class Passage:
    """A passage as it was published: its ID, its text, or both."""

    id: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Published:
    """A query, the passages that were shown, and the words that put them in order."""

    query_id: str | None
    query: str | None
    passages: tuple[Passage, ...]
    response: str
    line: int


def read_permutations(path: Path, reading: Reading) -> Iterator[Published]:
    """Every order of a file of JSON lines, or of one JSON list.

    A conversation that is not understood is dropped and counted.

    Raises:
        InputError: a line is no JSON object, or has no list of passages and no answer.
    """
    for line, record in _values(path, reading):
        turns = _first(record, TURNS)
        if turns is None:
            yield _record(record, path, line)
            continue
        found = conversation(turns if isinstance(turns, list) else [], line)
        if isinstance(found, str):
            reading.drops.add(found, f"line {line}")
        else:
            yield found


def conversation(turns: Sequence[Any], line: int = 1) -> Published | str:
    """What a conversation shows under `[1]`, `[2]`, …, and its last answer; or why it is dropped.

    One that begins to count again shows several lists, of which the last answer is about one only.

    Example:
        >>> asked = "Passages:\\n[1] The moon.\\n[2] A violin.\\nSearch Query: tides\\nRank the 2"
        >>> found = conversation([{"from": "human", "value": asked},
        ...                       {"from": "gpt", "value": "[1] > [2]"}])
        >>> found.query, [passage.text for passage in found.passages], found.response
        ('tides', ['The moon.', 'A violin.'], '[1] > [2]')
    """
    told = [turn for turn in turns if isinstance(turn, Mapping)]
    said = [(_first(turn, ("from", "role")), _first(turn, ("value", "content"))) for turn in told]
    asked = "\n".join(str(words) for who, words in said if who in ASKING)
    answers = [str(words) for who, words in said if who in ANSWERING]
    query, passages = _query(asked), numbered(asked)
    if not answers or query is None or not passages:
        return "conversation without a query, passages or answer"
    if len(FIRST_PASSAGE.findall(asked)) > 1:
        return "conversation with several lists of passages"
    return Published(None, query, tuple(Passage(None, p) for p in passages), answers[-1], line)


def _query(asked: str) -> str | None:
    """The query that is named after the passages, whatever they say; else the one before them."""
    after, before = (pattern.findall(asked) for pattern in QUERY_AT)
    return after[-1] if after else before[0] if before else None


def numbered(text: str) -> list[str]:
    """What stands after `[1]`, `[2]`, … at the beginnings of lines, in one unbroken count.

    Example:
        >>> numbered("Rank these.\\n[1] one [9] more\\n[2] two\\n\\nSearch Query: x")
        ['one [9] more', 'two']
    """
    starts: list[re.Match[str]] = []
    at = 0
    while found := re.compile(rf"^\[{len(starts) + 1}\]\s*", re.MULTILINE).search(text, at):
        starts.append(found)
        at = found.end()
    ends = [found.start() for found in starts[1:]]
    if starts:
        after = AFTER_LAST.search(text, starts[-1].end())
        ends.append(after.start() if after else len(text))
    return [text[found.end() : end].strip() for found, end in zip(starts, ends, strict=True)]


def _record(record: Mapping[str, Any], path: Path, line: int) -> Published:
    listed, answer = _first(record, LISTS), _first(record, ANSWERS)
    if not isinstance(listed, list) or answer is None:
        raise InputError(
            "no list of passages, or no answer that puts them in order",
            file=path,
            line=line,
            remedy=f"passages stand in one of {', '.join(LISTS)}, answers in one of "
            f"{', '.join(ANSWERS)}; conversations in {TURNS[0]}",
        )
    query, own = record.get("query"), _first(record, QUERY)
    if isinstance(query, Mapping):
        query, own = _first(query, TEXTS), _first(query, QUERY) if own is None else own
    passages = tuple(_passage(entry, path, line) for entry in listed)
    return Published(
        None if own is None else to_id(own, "query", path, line),
        None if query is None else str(query),
        passages,
        _words(answer, len(passages), path, line),
        line,
    )


def _passage(entry: Any, path: Path, line: int) -> Passage:
    if isinstance(entry, str):
        return Passage(None, entry)
    if not isinstance(entry, Mapping):
        raise InputError(f"{entry!r:.60} is no passage", file=path, line=line)
    inner = entry.get("doc")
    told = {**entry, **inner} if isinstance(inner, Mapping) else entry
    id, text, title = _first(entry, IDS), _first(told, TEXTS), told.get("title")
    if text is not None and title:
        text = f"{title} {text}"
    known = None if id is None else to_id(id, "document", path, line)
    return Passage(known, None if text is None else str(text))


def _words(answer: Any, count: int, path: Path, line: int) -> str:
    """An answer as words; a list of numbers that can only be counted one way, as `[2] > [1]`."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list) and answer and all(type(place) is int for place in answer):
        if 0 in answer and count not in answer:
            return " > ".join(f"[{place + 1}]" for place in answer)
        if 0 not in answer and count in answer:
            return " > ".join(f"[{place}]" for place in answer)
    raise InputError(
        f"{answer!r:.60} is no order of {count} passages",
        file=path,
        line=line,
        remedy="write it as text such as [2] > [1], or as all numbers from 0, or all from 1",
    )


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _values(path: Path, reading: Reading) -> Iterator[tuple[int, Mapping[str, Any]]]:
    lines = file_lines(path, reading)
    for before, (number, text) in enumerate(lines):
        if before == 0 and text.lstrip().startswith("["):
            whole = "\n".join([text, *(more.text for more in lines)])
            values = _parsed(whole, path, number)
            for place, value in enumerate(values, start=1):
                yield place, _object(value, path, place)
            return
        yield number, _object(_parsed(text, path, number), path, number)


def _parsed(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"not JSON: {error}", file=path, line=line, remedy="correct or remove the line"
        ) from error


def _object(value: Any, path: Path, line: int) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(
            f"{type(value).__name__} where an object {{…}} is expected",
            file=path,
            line=line,
            remedy="join answers that are in a file of their own to their passages first",
        )
    return value
