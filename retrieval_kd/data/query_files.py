"""Query files outside a collection: JSONL (`_id`, `text`) or two-column TSV, plain or `.gz`."""

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
    rows = parse_table(lines, str(path)) if is_table else parse_rows(lines, str(path), reading)
    queries: dict[str, str] = {}
    for row in rows:
        check_id(row.id, "query", row.file, row.line)
        if row.id in queries:
            raise InputError(
                "duplicate query ID",
                file=row.file,
                line=row.line,
                id=row.id,
                remedy="keep one of the two lines",
            )
        text = f"{row.title} {row.text}".strip()
        if not text:
            raise InputError(
                "empty query",
                file=row.file,
                line=row.line,
                id=row.id,
                remedy="write its text or remove the line",
            )
        queries[row.id] = text
    if not queries:
        raise InputError("no query in this file", file=path)
    return queries
