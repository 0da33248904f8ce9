"""Import of published orders: each is stored as a listwise teacher's answer about its passages.

RankGPT's records and RankZephyr's conversations are read; the texts are looked up in a collection.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retrieval_kd import progress
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.json_lines import first_value, json_objects
from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.answers import AnswerStore, Row
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.comparing.list_strategies import Windows
from retrieval_kd.teachers.comparing.parse_answers import parse_order
from retrieval_kd.teachers.importers.match import Matcher, imported_key
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


@dataclass
class ImportedOrders:
    """The result of an import.

    Args:
        stored: new orders.
        known: orders of passages that were given twice or stored before; the first order counts.
        repaired: of `stored`, orders with repeated, invalid or missing numbers.
        again: queries of `stored` that now have orders of several lists of passages.
        drops: what was left out.
    """

    key: TeacherKey
    stored: int = 0
    known: int = 0
    repaired: int = 0
    again: int = 0
    drops: Drops = field(default_factory=Drops)


def import_permutations(
    file: str | Path, store: ScoreStore, model: str, collection: Collection
) -> ImportedOrders:
    """Store the orders of a published file under a listwise teacher called `model`.

    Each order is the answer to one window. If a query has several, the last one counts by default;
    an aggregation such as `?aggregate=borda` uses them all. Passages that the collection lacks are
    left out of their order, and orders that cannot be parsed are dropped.

    Raises:
        InputError: the file is damaged, or no order is about this collection's texts.
    """
    path, reading, matcher = Path(file), Reading(), Matcher(collection)
    key = imported_key("listwise", model, prompt="order as published")
    result, new = ImportedOrders(key, drops=reading.drops), set[str]()
    answers = AnswerStore(store.folder(key), key)
    seen = {(row.query_digest, row.document_digests) for row in answers.rows() if row.answer}
    lists = Counter(query for query, _ in seen)
    size = path.stat().st_size if path.is_file() else 0
    with progress.bar(f"importing {path.name}", size) as bar, answers.writer() as writer:
        reading.advance = bar.advance
        for order in read_orders(path, reading):
            row = _row(order, matcher, result.drops)
            if row is None or row.answer is None:
                continue
            if (row.query_digest, row.document_digests) in seen:
                result.known += 1
                continue
            seen.add((row.query_digest, row.document_digests))
            window = Windows(max(20, len(row.document_ids)))
            writer.add([replace(row, answer=None, strategy=window.spec), row])
            result.stored += 1
            result.repaired += row.answer.status == "repaired"
            lists[row.query_digest] += 1
            new.add(row.query_digest)
    result.again = sum(lists[query] > 1 for query in new)
    if result.stored + result.known == 0:
        why = "; ".join(result.drops.summary()) or "it is empty"
        remedy = "check that the file and the collection are of the same dataset"
        raise InputError(f"nothing to import: {why}", file=path, remedy=remedy)
    return result


def _row(published: PublishedOrder, matcher: Matcher, drops: Drops) -> Row | None:
    """The answer about the passages that the collection has; None if it orders fewer than two."""
    here = f"line {published.line}"
    query = matcher.query(published.query_id, published.query)
    if query is None:
        drops.add("order of a query that the collection lacks", here)
        return None
    order, status = parse_order(published.response, len(published.passages))
    if order is None:
        drops.add("answer that cannot be parsed", here)
        return None
    kept: dict[str, tuple[int, str]] = {}  # text digest → place, document ID
    for place, passage in enumerate(published.passages):
        document = matcher.document(passage.id, passage.text)
        if document is None:
            drops.add("passage that the collection lacks", f"{here}, [{place + 1}]")
            continue
        digest = document_digest(document.title, document.text)
        if digest in kept:
            drops.add("passage given twice in one list", f"{here}, [{place + 1}]")
        else:
            kept[digest] = (place, document.id)
    places = [place for place, _ in kept.values()]
    left = tuple(places.index(place) for place in order if place in places)
    if len(left) < 2:
        drops.add("order of fewer than two passages that the collection has", here)
        return None
    text = published.response
    if len(places) < len(published.passages):  # the passages have new numbers
        text = " > ".join(f"[{place + 1}]" for place in left)
    digest = query_digest(matcher.collection.queries[query].full)
    ids = tuple(id for _, id in kept.values())
    return Row(query, ids, digest, tuple(kept), Answer(text, order=left, status=status))


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
