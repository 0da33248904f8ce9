"""Query files outside a collection: JSONL (`_id`, `text`) or two-column TSV, plain or `.gz`.

A log may also be a `.txt` file with one query a line.
"""

from __future__ import annotations

from pathlib import Path

from retrieval_kd.data.beir import parse_rows
from retrieval_kd.data.msmarco import parse_table
from retrieval_kd.data.rows import Reading, check_id
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import InputError


def read_queries(path: str | Path) -> dict[str, str]:
    """Read query ID → text, in the file's order.

    Raises:
        InputError: no such file, a broken line, a duplicate or invalid ID, an empty query.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file of queries", file=path, remedy="check the path")
    plain = path.name.removesuffix(".gz")
    reading = Reading()
    lines = file_lines(path, reading)
    is_table = plain.endswith((".tsv", ".txt"))
    parse = parse_table if is_table else parse_rows
    rows = parse(lines, str(path), reading)
    queries: dict[str, str] = {}
    for row in rows:
        check_id(row.id, "query", row.file, row.line)
        text = f"{row.title} {row.text}".strip()
        if row.id in queries:
            problem, remedy = "duplicate query ID", "keep one of the two lines"
        elif not text:
            problem, remedy = "empty query", "write its text or remove the line"
        else:
            queries[row.id] = text
            continue
        raise InputError(problem, file=row.file, line=row.line, id=row.id, remedy=remedy)
    if not queries:
        raise InputError("no query in this file", file=path)
    reading.drops.warn(str(path))
    return queries


def read_log(path: str | Path) -> dict[str, str]:
    """Read a log's query ID → text. IDs begin with `log:`, so they are those of no collection.

    A line of a `.txt` file is a query, and its number the ID.

    Raises:
        InputError: as `read_queries`; no query at all; a tab in a line of a `.txt` file.
    """
    path = Path(path)
    if path.name.removesuffix(".gz").endswith(".txt"):
        reading = Reading()
        rows = {}
        for number, text in file_lines(path, reading):
            if "\t" in text.strip():
                problem, remedy = "a tab in a query", "name a table of IDs and queries .tsv"
                raise InputError(problem, file=path, line=number, remedy=remedy)
            rows[str(number)] = text.strip()
        reading.drops.warn(str(path))
    else:
        rows = read_queries(path)
    texts = {f"log:{id}": text for id, text in rows.items() if text}
    if not texts:
        raise InputError("no query in this file", file=path)
    return texts
