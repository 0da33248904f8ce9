"""Reads BEIR files: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv` (or `.jsonl`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from retrieval_kd.data.json_lines import parse_object
from retrieval_kd.data.qrels import judgment_files, judgment_readers
from retrieval_kd.data.rows import Reader, Reading, Row
from retrieval_kd.data.sources import Line, Source, file_lines, parsed
from retrieval_kd.errors import InputError, kind_of

BESIDE = r"qrels([._-][^/]+)?\.(tsv|txt|jsonl)(\.gz)?"  # judgments beside the corpus
FORM = 'one JSON object a line, such as {"_id": "d1", "title": "…", "text": "…"}'


def beir_reader(source: Source, *, deep: bool = False) -> Reader | None:
    """Return a reader if `corpus.jsonl` is at the source's top level or in one folder of a zip.

    Args:
        deep: look in all folders, for one collection.
    """
    root = _root(source, 99 if deep else 2 if source.is_zip else 1)
    if root is None:
        return None
    corpus, queries = source.one(f"{root}corpus.jsonl"), source.one(f"{root}queries.jsonl")
    if deep and not (corpus and queries):
        return None  # other files by these names
    if corpus is None or queries is None:
        missing = "corpus.jsonl" if corpus is None else "queries.jsonl"
        remedy = "a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv"
        problem = f"{root}{missing} is missing"
        instead = next((name for name in source.names if name.startswith(f"{root}{missing}")), "")
        if instead.startswith(f"{root}{missing}/"):
            problem, remedy = (
                f"{root}{missing} is a folder",
                f"put the file in its place: {instead}",
            )
        elif instead:
            problem, remedy = f"{problem}, but {instead} is here", "unpack it, or pack it with gzip"
        raise InputError(problem, file=source.path, remedy=remedy)
    qrels, ignored = judgment_files(source, f"{root}qrels/", "([^/]+?)")
    beside = [name for name in source.names if re.fullmatch(re.escape(root) + BESIDE, name)]
    if beside and not qrels:
        qrels, _ = judgment_files(source, f"{root}qrels", r"(?:[._-]([^/]+?))?")
    ignored += [source.label(name) for name in beside if name not in qrels.values()]
    return Reader(
        name=source.name,
        key=["beir", *source.key([corpus, queries, *qrels.values()])],
        total=source.total([corpus]),
        documents=partial(parsed, parse_rows, source, corpus),
        queries=partial(parsed, parse_rows, source, queries),
        judgments=judgment_readers(source, qrels),
        ignored=ignored,
    )


def _root(source: Source, depth: int) -> str | None:
    """The collection's folder in the source: "" or "NAME/"; None if it holds no collection."""
    files = re.compile(r"(corpus|queries)\.jsonl(\.gz)?")
    paths = [PurePosixPath(name) for name in source.names]
    roots = {p.parent for p in paths if len(p.parts) <= depth and files.fullmatch(p.name)}
    if len(roots) > 1:
        names = ", ".join(sorted(map(str, roots))[:9]) + (", …" if len(roots) > 9 else "")
        problem = f"several collections in here: {names}"
        raise InputError(
            problem, file=source.path, remedy="name one of them, or give each its own zip"
        )
    return next((f"{root}/" if root.name else "" for root in roots), None)


def read_documents(path: Path, reading: Reading) -> Iterator[Row]:
    """Read the documents of one file of JSON lines, plain or gzipped."""
    return parse_rows(file_lines(path, reading), str(path), reading)


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
