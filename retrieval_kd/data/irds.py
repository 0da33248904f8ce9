"""Reads collections of `ir_datasets` by ID; that package handles downloads and licences."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from retrieval_kd.data.numerals import whole_number
from retrieval_kd.data.rows import BROKEN, Judgment, Reader, Reading, Row
from retrieval_kd.errors import InputError, kind_of, shown

BODIES = ("text", "body", "abstract", "contents")


def irds_reader(id: str) -> Reader | None:
    """Return a reader if `ir_datasets` knows the ID.

    An ID with judgments (`beir/scifact/test`) has one split, named by the part of the ID that
    follows the documents' ID (`test`). An ID with queries only (`beir/scifact`) has a split for
    each part with judgments.
    """
    import ir_datasets

    dataset = _load(id)
    if dataset is None:
        return None
    if not dataset.has_docs() or not dataset.has_queries():
        parts = [part for part in ir_datasets.registry if part.startswith(f"{id}/")]
        whole = [part for part in parts if (d := _load(part)) and d.has_queries() and d.has_docs()]
        problem = "this ir_datasets ID has no " + ("queries" if dataset.has_docs() else "documents")
        remedy = f"name one of its parts: {', '.join(whole[:12])}" if whole else "name another"
        raise InputError(problem, id=id, remedy=remedy)
    judged = {_split(id): dataset} if dataset.has_qrels() else _parts(id)
    return Reader(
        name=id,
        key=["irds", id, ir_datasets.__version__, sorted(judged)],
        total=_count(dataset),
        documents=partial(_documents, id, dataset),
        queries=partial(_queries, id, dataset),
        judgments={split: partial(_judgments, id, part) for split, part in judged.items()},
    )


def _load(id: str) -> Any | None:
    import ir_datasets

    try:
        return ir_datasets.load(id)
    except KeyError:
        return None


def _split(id: str) -> str:
    import ir_datasets

    parent = ir_datasets.parent_id(id, ir_datasets.EntityType.docs)
    return id[len(parent) :].strip("/").replace("/", "-") or "test"


def _parts(id: str) -> dict[str, Any]:
    import ir_datasets

    names = [
        n for n in ir_datasets.registry if n.startswith(f"{id}/") and "/" not in n[len(id) + 1 :]
    ]
    parts = {name.rpartition("/")[2]: _load(name) for name in names}
    return {split: part for split, part in parts.items() if part is not None and part.has_qrels()}


def _count(dataset: Any) -> int:
    try:
        return int(dataset.docs_count() or 0)
    except Exception:  # not every collection knows its size; the bar then shows no total
        return 0


def _documents(id: str, dataset: Any, reading: Reading) -> Iterator[Row]:
    for number, document in enumerate(_guarded(id, dataset.docs_iter), start=1):
        title = getattr(document, "title", None)
        body = next((b for n in BODIES if isinstance(b := getattr(document, n, None), str)), None)
        if body is None:
            title, body = "", _default_text(document, id, number)
        title = title if isinstance(title, str) else ""
        yield Row(_text(document, "doc_id", id, number), title, body, id, number)
        reading.advance(1)


def _queries(id: str, dataset: Any, reading: Reading) -> Iterator[Row]:
    for number, query in enumerate(_guarded(id, dataset.queries_iter), start=1):
        text = _default_text(query, id, number)
        yield Row(_text(query, "query_id", id, number), "", text, id, number)


def _judgments(id: str, dataset: Any, reading: Reading) -> Iterator[Judgment]:
    file = f"{id} qrels"
    for number, qrel in enumerate(_guarded(id, dataset.qrels_iter), start=1):
        query, document = (_text(qrel, name, file, number) for name in ("query_id", "doc_id"))
        gain = whole_number(getattr(qrel, "relevance", None))
        if gain is None:
            told = shown(repr(getattr(qrel, "relevance", None)), 60)
            raise _wrong(f"the relevance {told} is no whole number", file, number)
        yield Judgment(query, document, gain, file, number)


def _text(record: Any, name: str, file: str, number: int) -> str:
    value = getattr(record, name, None)
    if not isinstance(value, str):
        raise _wrong(f"the {name} is {kind_of(value)} where a text is expected", file, number)
    if BROKEN.search(value):
        raise _wrong(f"the {name} has half a character or a zero byte", file, number)
    return value


def _default_text(record: Any, id: str, number: int) -> str:
    try:
        text = record.default_text()
    except Exception as error:  # code of the collection
        problem = f"its text cannot be read: {type(error).__name__}: {error}"
        raise _wrong(problem, id, number) from error
    if not isinstance(text, str):
        raise _wrong(f"its text is {kind_of(text)}", id, number)
    return text


def _wrong(problem: str, file: str, number: int) -> InputError:
    remedy = "name another collection, or write this one to a BEIR folder and correct it there"
    return InputError(problem, file=file, line=number, remedy=remedy)


def _guarded(id: str, iterate: Any) -> Iterator[Any]:
    """Report any failure of `ir_datasets` (download, licence, checksum) as wrong input."""
    try:
        yield from iterate()
    except Exception as error:
        problem = f"ir_datasets could not provide {id}: {type(error).__name__}: {error}"
        remedy = "check the connection, and the collection's page on ir-datasets.com for its terms"
        raise InputError(problem, remedy=remedy) from error
