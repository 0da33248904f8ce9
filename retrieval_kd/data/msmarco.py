"""Reads MS MARCO tables: `collection.tsv`, `queries.SPLIT.tsv`, `qrels.SPLIT.tsv`, or `.gz`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial

from retrieval_kd.data.qrels import judgment_files, judgment_readers
from retrieval_kd.data.rows import Reader, Reading, Row
from retrieval_kd.data.sources import Line, Source, parsed
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text

TABLES = r"(collection|msmarco-docs)\.tsv"
# words in the names of columns
IDS = {
    *("id", "qid", "docid", "docno", "pid", "did", "queryid", "documentid", "topic"),
    *("topicid", "number"),
}
TEXTS = {
    *("text", "query", "question", "passage", "document", "body", "content", "contents"),
    *("abstract", "sentence"),
}


def msmarco_reader(source: Source) -> Reader | None:
    """Return a reader if there are `collection.tsv` (or `msmarco-docs.tsv`) and `queries.*.tsv`."""
    where = r"((?:[^/]+/)?)" if source.is_zip else "()"
    matches = (re.fullmatch(rf"{where}{TABLES}(\.gz)?", name) for name in source.names)
    folder = next((match[1] for match in matches if match), None)
    if folder is None:
        return None
    tables = [n for n in source.names if re.fullmatch(rf"{re.escape(folder)}{TABLES}(\.gz)?", n)]
    if len(tables) > 1:
        problem = f"several document files: {', '.join(tables)}"
        raise InputError(problem, file=source.path, remedy="keep one of them")
    queries = _queries(source, folder)
    if not queries:
        return None  # TREC files, perhaps
    qrels, ignored = judgment_files(source, f"{folder}qrels", r"(?:\.(.+?))?")
    return Reader(
        name=source.name,
        key=["msmarco", *source.key([*tables, *queries.values(), *qrels.values()])],
        total=source.total(tables),
        documents=partial(parsed, parse_table, source, tables[0]),
        queries=partial(tsv_queries, source, list(queries.values())),
        judgments=judgment_readers(source, qrels),
        ignored=ignored,
    )


def _queries(source: Source, folder: str) -> dict[str, str]:
    """Split → file: `queries.dev.small.tsv` is split `dev.small`, `queries.tsv` is `test`."""
    parts = {}
    for name in source.names:
        if match := re.fullmatch(rf"{re.escape(folder)}queries(?:\.(.+?))?\.tsv(\.gz)?", name):
            source.one(name.removesuffix(".gz"))
            parts[match[1] or "test"] = name
    return parts


def parse_table(lines: Iterable[Line], file: str, reading: Reading) -> Iterator[Row]:
    """Parse rows of ID, text; or ID, title, text; or ID, URL, title, text (MS MARCO documents)."""
    width = 0
    for place, (number, text) in enumerate(lines):
        cells = text.split("\t")
        if place == 0 and _is_header(cells, file, number):
            reading.drops.add("header of a table skipped", f"{file}: {text:.60}")
            continue
        width = width or len(cells)
        if len(cells) != width or not 2 <= width <= 4:
            wanted = f"{width}, as on the first line," if 2 <= width <= 4 else "2, 3 or 4"
            problem = f"{len(cells)} columns where {wanted} are expected"
            remedy = "write ID and text, separated by one tab, without tabs in the text"
            raise InputError(problem, file=file, line=number, remedy=remedy)
        title = cells[-2] if width > 2 else ""
        yield Row(cells[0].strip(" "), title, cells[-1], file, number)


def _is_header(cells: list[str], file: str, line: int) -> bool:
    """Whether all cells are names of columns; they must stand in the order that is read."""
    kinds = [_column(cell) for cell in cells]
    if "" in kinds or not {"id", "text"} <= set(kinds):
        return False
    if kinds not in (["id", "text"], ["id", "title", "text"], ["id", "url", "title", "text"]):
        problem = f"columns in another order: {', '.join(cells)}"
        remedy = "write ID, text; or ID, title, text; or ID, URL, title, text"
        raise InputError(problem, file=file, line=line, remedy=remedy)
    return True


def _column(name: str) -> str:
    """What a column of this name holds: id, url, title or text; "" if it is no such name."""
    words = re.split(r"[ _-]+", name.strip().lower())
    if len(words) > 3:
        return ""
    for kind, known in (("id", IDS), ("url", {"url"}), ("title", {"title"}), ("text", TEXTS)):
        if not known.isdisjoint(words):
            return kind
    return ""


def tsv_queries(source: Source, names: list[str], reading: Reading) -> Iterator[Row]:
    """Read queries from several files; a query repeated in another file is read once.

    MS MARCO repeats queries: `queries.dev.small.tsv` is a part of `queries.dev.tsv`.
    """
    seen: dict[str, tuple[str, str]] = {}
    for name in names:
        for row in parsed(parse_table, source, name, reading):
            digest = digest_text(row.title, row.text)[:16]
            file, earlier = seen.setdefault(row.id, (row.file, digest))
            if file == row.file:
                yield row  # a repeat within one file is found when the texts are built
            elif earlier != digest:
                problem = f"a different text for a query of {file}"
                remedy = "give one of the two a different ID"
                raise InputError(problem, file=row.file, line=row.line, id=row.id, remedy=remedy)
            else:
                reading.drops.add("query repeated in another file", f"{row.id} at {row.file}")
