"""Reads BEIR files: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv` (or `.jsonl`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import PurePosixPath

from retrieval_kd.data.json_lines import kind_of, parse_object
from retrieval_kd.data.qrels import judgment_files, judgment_readers
from retrieval_kd.data.rows import Reader, Reading, Row
from retrieval_kd.data.sources import Line, Source, parsed
from retrieval_kd.errors import InputError

FORM = 'one JSON object a line, such as {"_id": "d1", "title": "…", "text": "…"}'


def beir_reader(source: Source) -> Reader | None:
    """Return a reader if `corpus.jsonl` is at the source's top level or in one folder of a zip."""
    root = _root(source)
    if root is None:
        return None
    corpus, queries = source.one(f"{root}corpus.jsonl"), source.one(f"{root}queries.jsonl")
    if corpus is None or queries is None:
        missing = "corpus.jsonl" if corpus is None else "queries.jsonl"
        remedy = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv"
        raise InputError(f"{root}{missing} is missing", file=source.path, remedy=remedy)
    qrels, ignored = judgment_files(source, f"{root}qrels/", "([^/]+?)")
    return Reader(
        name=source.name,
        key=["beir", *source.key([corpus, queries, *qrels.values()])],
        total=source.total([corpus]),
        documents=partial(parsed, parse_rows, source, corpus),
        queries=partial(parsed, parse_rows, source, queries),
        judgments=judgment_readers(source, qrels),
        ignored=ignored,
    )


def _root(source: Source) -> str | None:
    """The collection's folder in the source: "" or "NAME/"; None if it holds no collection."""
    files = re.compile(r"(corpus|queries)\.jsonl(\.gz)?")
    depth = 2 if source.is_zip else 1
    paths = [PurePosixPath(name) for name in source.names]
    roots = {p.parent for p in paths if len(p.parts) <= depth and files.fullmatch(p.name)}
    if len(roots) > 1:
        names = ", ".join(sorted(map(str, roots)))
        problem = f"several collections in one file: {names}"
        raise InputError(problem, file=source.path, remedy="give each its own zip or folder")
    return next((f"{root}/" if root.name else "" for root in roots), None)


def parse_rows(lines: Iterable[Line], file: str, reading: Reading) -> Iterator[Row]:
    """Parse documents or queries from JSON lines with `_id`, `text` and an optional `title`."""
    for number, text in lines:
        record = parse_object(text, file, number, f"write {FORM}")
        id = record.get("_id")
        if isinstance(id, int) and not isinstance(id, bool):
            reading.drops.add("number as ID read as text", f"{file}:{number}")
            id = str(id)
        if not isinstance(id, str):
            problem = 'no "_id"' if id is None else f'"_id" is {kind_of(id)}, not text'
            raise InputError(problem, file=file, line=number, remedy=FORM)
        title, body = record.get("title"), record.get("text")
        if not isinstance(body, str):
            problem = f'"text" is {kind_of(body)}, not text' if "text" in record else 'no "text"'
            raise InputError(problem, file=file, line=number, id=id, remedy=FORM)
        if title is not None and not isinstance(title, str):
            problem = f'"title" is {kind_of(title)}, not text'
            raise InputError(problem, file=file, line=number, id=id, remedy=FORM)
        yield Row(id, title or "", body, file, number)
