"""Stores published orders as a listwise teacher's answers, each about the passages it was shown."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from retrieval_kd import progress
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.store.answer_rows import Row
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.requests import Answer
from retrieval_kd.store.scores import ScoreStore, TeacherKey
from retrieval_kd.teachers.comparing.parse_answers import parse_order
from retrieval_kd.teachers.comparing.windows import Windows
from retrieval_kd.teachers.importers.matching import Matcher
from retrieval_kd.teachers.importers.permutations import Published, read_permutations


@dataclass
class ImportedOrders:
    """What came of an import.

    Args:
        stored: orders that are new.
        known: orders of the same passages, given twice or known before; the first counts.
        repaired: of `stored`, with doubles, strangers or gaps; what is wrong is left out.
        again: queries of `stored` that now have orders of several lists of passages.
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
    """Store a published file's orders as those of a listwise teacher called `model`.

    Each is one answer about one window. Of a query with several, the last concludes; an aggregation
    such as `?aggregate=borda` takes all of them. Passages that the collection lacks are left out of
    their order, and what could not be parsed is left out altogether.

    Raises:
        InputError: the file is broken, or none of its orders is of this collection's texts.
    """
    path, reading, matcher = Path(file), Reading(), Matcher(collection)
    key = TeacherKey("listwise", model, digest=f"imported:{model}", prompt="order as published")
    made, new = ImportedOrders(key, drops=reading.drops), set[str]()
    answers = AnswerStore(store.folder(key), key)
    seen = {(row.query_digest, row.document_digests) for row in answers.rows() if row.answer}
    lists = Counter(query for query, _ in seen)
    size = path.stat().st_size if path.is_file() else 0
    with progress.bar(f"importing {path.name}", size) as shown, answers.writer() as writer:
        reading.advance = shown.advance
        for told in read_permutations(path, reading):
            row = _row(told, matcher, made.drops)
            if row is None or row.answer is None:
                continue
            if (row.query_digest, row.document_digests) in seen:
                made.known += 1
                continue
            seen.add((row.query_digest, row.document_digests))
            window = Windows(max(20, len(row.document_ids)))
            given = (row.query_id, row.document_ids, row.query_digest, row.document_digests)
            writer.add([Row(*given, strategy=window.spec), row])
            made.stored += 1
            made.repaired += row.answer.status == "repaired"
            lists[row.query_digest] += 1
            new.add(row.query_digest)
    made.again = sum(lists[query] > 1 for query in new)
    if made.stored + made.known == 0:
        why = "; ".join(made.drops.summary()) or "it is empty"
        remedy = "check that the file and the collection are of the same dataset"
        raise InputError(f"nothing to import: {why}", file=path, remedy=remedy)
    return made


def _row(told: Published, matcher: Matcher, drops: Drops) -> Row | None:
    """The answer about those passages that the collection has; None: it says nothing of them."""
    here = f"line {told.line}"
    query = matcher.query(told)
    if query is None:
        drops.add("order of a query that the collection lacks", here)
        return None
    order, status = parse_order(told.response, len(told.passages))
    if _names_zero(told.response, len(told.passages)):
        drops.add("order in words that counts from 0", here)
        return None
    if order is None:
        drops.add("answer that cannot be parsed", here)
        return None
    kept: dict[str, tuple[int, str]] = {}  # text digest → place, document ID
    for place, passage in enumerate(told.passages):
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
    words = told.response
    if len(places) < len(told.passages):  # the numbers are others now
        words = " > ".join(f"[{place + 1}]" for place in left)
    text = query_digest(matcher.collection.queries[query].full)
    ids = tuple(id for _, id in kept.values())
    return Row(query, ids, text, tuple(kept), Answer(words, order=left, status=status))


def _names_zero(response: str, count: int) -> bool:
    """Whether a passage is called 0: all are called by one less, then, than where they stand.

    Counted one further, 0 is what `parse_order` calls the first.

    Example:
        >>> _names_zero("[2] > [0] > [1]", 3), _names_zero("[10] > [2]", 10)
        (True, False)
    """
    further = re.sub(r"(?<!\d)\d{1,8}(?!\d)", lambda found: str(int(found[0]) + 1), response)
    return 0 in (parse_order(further, count + 1)[0] or ())
