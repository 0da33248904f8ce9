"""Import of published orders: each is stored as a listwise teacher's answer about its passages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from retrieval_kd import progress
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.rows import Reading
from retrieval_kd.data.texts import Document, hash_id
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.answer_rows import Row
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.comparing.list_strategies import Windows
from retrieval_kd.teachers.comparing.parse_answers import parse_order
from retrieval_kd.teachers.importers.order_files import Passage, PublishedOrder, read_orders


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
    key = TeacherKey("listwise", model, digest=f"imported:{model}", prompt="order as published")
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
    query = matcher.query(published)
    if query is None:
        drops.add("order of a query that the collection lacks", here)
        return None
    order, status = parse_order(published.response, len(published.passages))
    if _names_zero(published.response, len(published.passages)):
        drops.add("order in words that counts from 0", here)
        return None
    if order is None:
        drops.add("answer that cannot be parsed", here)
        return None
    kept: dict[str, tuple[int, str]] = {}  # text digest → place, document ID
    for place, passage in enumerate(published.passages):
        document = matcher.document(passage)
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


def _names_zero(response: str, count: int) -> bool:
    """Whether a response counts passages from 0.

    With one added to every number, `parse_order` then finds the first passage, position 0.

    Example:
        >>> _names_zero("[2] > [0] > [1]", 3), _names_zero("[10] > [2]", 10)
        (True, False)
    """
    raised = re.sub(r"(?<!\d)\d{1,8}(?!\d)", lambda number: str(int(number[0]) + 1), response)
    return 0 in (parse_order(raised, count + 1)[0] or ())


NUMBER = re.compile(
    r"\[(\d+)\]"
)  # bracketed number in a passage, which published prompts write as (3)
LABELLED = re.compile(r"^Title: (.*?) Content: ")


def plain(text: str) -> str:
    """Undo what prompts change in a text: repeated spaces, numbers in brackets, labels.

    Example:
        >>> plain("Title: Tides Content: The  moon [3]\\n pulls.")
        'Tides The moon (3) pulls.'
    """
    return LABELLED.sub(r"\1 ", " ".join(NUMBER.sub(r"(\1)", text).split())).strip()


class Matcher:
    """Looks up published queries and passages.

    An ID counts only if the text published with it, if any, equals the query or is the beginning of
    the document, because two collections may use the same IDs.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def query(self, published: PublishedOrder) -> str | None:
        """ID of the query, or None if the collection lacks it."""
        queries, id = self.collection.queries, published.query_id
        ours = plain(queries[id].full) if id is not None and id in queries else None
        if ours is not None and (published.query is None or plain(published.query) == ours):
            return id
        if published.query is None:
            return None
        text = plain(published.query)
        endings = (text, text.removesuffix("."))  # some prompts end the query with a full stop
        return next((self._queries[t] for t in endings if t in self._queries), None)

    def document(self, passage: Passage) -> Document | None:
        """The document, or None if the collection lacks it or has another text under its ID."""
        documents = self.collection.documents
        if passage.id is not None and passage.id in documents:
            document = documents[passage.id]
            text = None if passage.text is None else plain(passage.text)
            if text is None or any(form.startswith(text) for form in _forms(document)):
                return document
        if passage.text is None:
            return None
        place = self._places.get(hash_id(plain(passage.text)))
        return None if place is None else documents.at(place)

    @cached_property
    def _queries(self) -> dict[str, str]:
        """Text → ID of the first query with this text."""
        ids: dict[str, str] = {}
        for query in self.collection.queries.iterate():
            ids.setdefault(plain(query.full), query.id)
        return ids

    @cached_property
    def _places(self) -> dict[int, int]:
        """Hash of a text → position of the first document with this text."""
        places: dict[int, int] = {}
        for place, document in enumerate(self.collection.documents.iterate()):
            for form in _forms(document):
                places.setdefault(hash_id(form), place)
        return places


def _forms(document: Document) -> Iterator[str]:
    """The forms in which a document may be published: with and without its title."""
    yield plain(document.full)
    if document.title:
        yield plain(document.text)
