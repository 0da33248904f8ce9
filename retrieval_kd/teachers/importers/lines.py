"""Readers of score files with a pair or triple per line: TSV, Hofstätter's triples, TREC runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrieval_kd.data.rows import Reading
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers.pairs import ScoredPair, to_id, to_score
from retrieval_kd.teachers.importers.records import DOCUMENT, QUERY, SCORE

NAMES = frozenset((*QUERY, *DOCUMENT, *SCORE))


def split_line(text: str) -> list[str]:
    """Split a line at its tabs, or at spaces if it has none."""
    return [cell.strip() for cell in text.split("\t")] if "\t" in text else text.split()


def is_header(cells: list[str]) -> bool:
    """Whether a first line is a header: at least two of its cells are known column names.

    Example:
        >>> is_header(["qid", "pid", "Score"]), is_header(["qid", "11", "2.5"])
        (True, False)
    """
    return sum(cell.lower() in NAMES for cell in cells) >= 2


def read_tsv(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read `query document score`, or the columns that a header names."""
    order = (0, 1, 2)
    for number, text in file_lines(path, reading):
        cells = split_line(text)
        if number == 1 and is_header(cells):
            order = _header([cell.lower() for cell in cells], path)
            continue
        if len(cells) <= max(order) or (order == (0, 1, 2) and len(cells) != 3):
            raise _columns(cells, "query, document, score", path, number)
        query, document, score = (cells[column] for column in order)
        yield _pair(query, document, score, path, number)


def read_hofstaetter(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read two pairs a line: `positive_score negative_score query positive negative`."""
    for number, text in file_lines(path, reading):
        cells = split_line(text)
        if len(cells) != 5:
            columns = "positive score, negative score, query, positive, negative"
            raise _columns(cells, columns, path, number)
        positive_score, negative_score, query, positive, negative = cells
        yield _pair(query, positive, positive_score, path, number)
        yield _pair(query, negative, negative_score, path, number)


def read_trec(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read `query Q0 document rank score name`, a TREC run; the rank is ignored."""
    for number, text in file_lines(path, reading):
        cells = text.split()
        if len(cells) != 6:
            raise _columns(cells, "query, Q0, document, rank, score, name", path, number)
        yield _pair(cells[0], cells[2], cells[4], path, number)


def _pair(query: str, document: str, score: str, path: Path, number: int) -> ScoredPair:
    return ScoredPair(
        to_id(query, "query", path, number),
        to_id(document, "document", path, number),
        to_score(score, path, number),
        number,
    )


def _header(names: list[str], path: Path) -> tuple[int, int, int]:
    found = [
        next((names.index(name) for name in known if name in names), None)
        for known in (QUERY, DOCUMENT, SCORE)
    ]
    if None in found:
        problem = f"the first line names {', '.join(names)}"
        raise InputError(problem, file=path, line=1, remedy="name query_id, document_id and score")
    query, document, score = (column for column in found if column is not None)
    return query, document, score


def _columns(cells: list[str], expected: str, path: Path, number: int) -> InputError:
    return InputError(
        f"{len(cells)} columns where {expected} are expected",
        file=path,
        line=number,
        remedy="correct the line, or name the file's shape with --format",
    )
