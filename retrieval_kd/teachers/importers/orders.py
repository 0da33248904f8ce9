"""Import of published orders: each is stored as a listwise teacher's answer about its passages."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from retrieval_kd import progress
from retrieval_kd.data.collection import Collection
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
from retrieval_kd.teachers.importers.order_files import PublishedOrder, read_orders


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
    if _names_zero(published.response, len(published.passages)):
        drops.add("order in words that counts from 0", here)
        return None
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


def _names_zero(response: str, count: int) -> bool:
    """Whether a response counts passages from 0.

    With one added to every number, `parse_order` then finds the first passage, position 0.

    Example:
        >>> _names_zero("[2] > [0] > [1]", 3), _names_zero("[10] > [2]", 10)
        (True, False)
    """
    raised = re.sub(r"(?<!\d)\d{1,8}(?!\d)", lambda number: str(int(number[0]) + 1), response)
    return 0 in (parse_order(raised, count + 1)[0] or ())
