"""Readers of published score files: JSON lines, Parquet, TSV, TREC runs and special shapes.

Every reader yields checked `ScoredPair`s, or raises an InputError with the file and line.
`records.py` reads one object or row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_kd.data.json_lines import json_objects, kind_of, parse_json
from retrieval_kd.data.rows import Reading
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers.records import (
    DOCUMENT,
    FIELDS,
    HEADER,
    QUERY,
    SCORE,
    TEXT_FIELDS,
    ScoredPair,
    only_ranks,
    record_pairs,
    to_id,
    to_score,
)

REMEDY = "correct the line, or name the file's shape with --format"
PATIENCE = 1000  # lines of hard negatives without one score before the file is refused


def read_jsonl(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read objects with a query, document(s) and score(s); see `record_pairs`."""
    for number, value in json_objects(path, reading, REMEDY):
        yield from record_pairs(value, path, number, reading.drops)


def read_nested(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read `{query: {document: score}}`, in one object or in one a line."""
    for number, value in json_objects(path, reading, REMEDY):
        for query, scores in value.items():
            query_id = to_id(query, "query", path, number)
            if not isinstance(scores, dict):
                problem = f"{kind_of(scores)} where {{document: score}} is expected"
                raise InputError(problem, file=path, line=number, id=query_id, remedy=REMEDY)
            for document, score in scores.items():
                yield _pair(query_id, document, score, path, number)


def read_tdist(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read `[query, [document, score], [document, score], …]`.

    This is the format of ColBERT's n-way triples and of TDist scores.
    """
    for number, text in file_lines(path, reading):
        value = parse_json(text, path, number, REMEDY)
        if not isinstance(value, list):
            problem = f"{kind_of(value)} where a list […] is expected"
            raise InputError(problem, file=path, line=number, remedy=REMEDY)
        if len(value) < 2:
            raise InputError("a query without documents", file=path, line=number)
        query_id = to_id(value[0], "query", path, number)
        for entry in value[1:]:
            if not isinstance(entry, list):
                raise only_ranks(path, number)
            if len(entry) != 2:
                problem = f"{entry!r:.60} is not [document, score]"
                raise InputError(problem, file=path, line=number)
            document_id = to_id(entry[0], "document", path, number)
            yield ScoredPair(query_id, document_id, to_score(entry[1], path, number), number)


def read_hard_negatives(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read `{"qid", "pos": [{"pid", "ce-score"}], "neg": {system: [{"pid", "ce-score"}]}}`.

    Entries without a score (plain IDs) are counted; a file without any score is refused.
    """
    scored, number = 0, 0
    for number, value in json_objects(path, reading, REMEDY):
        if "qid" not in value or "neg" not in value:
            raise InputError("no qid or no neg", file=path, line=number)
        query_id = to_id(value["qid"], "query", path, number)
        for entry in _entries(value, path, number):
            item = entry if isinstance(entry, dict) else {"pid": entry}
            document_id = to_id(item.get("pid"), "document", path, number)
            score = item.get("ce-score", item.get("ce_score"))
            if score is None:
                reading.drops.add("candidate without a ce-score", f"{query_id} {document_id}")
                continue
            scored += 1
            yield ScoredPair(query_id, document_id, to_score(score, path, number), number)
        if not scored and number >= PATIENCE:
            break
    if number and not scored:
        raise InputError(
            "hard negatives without a single ce-score",
            file=path,
            remedy="their scores are in cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz; "
            "convert that file as docs/scores.md says, and import the result",
        )


def _entries(value: dict[str, Any], path: Path, number: int) -> Iterator[Any]:
    positives, negatives = value.get("pos", []), value["neg"]
    lists = [positives, *(negatives.values() if isinstance(negatives, dict) else [negatives])]
    for entries in lists:
        if not isinstance(entries, list):
            raise InputError("pos or neg is not a list", file=path, line=number)
        yield from entries


def read_parquet(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read rows with a pair or a query's list, such as Rank-DistiLLM's; see `record_pairs`."""
    for number, row in enumerate(_parquet_rows(path, reading), start=1):
        yield from record_pairs(row, path, number, reading.drops)


def _parquet_rows(path: Path, reading: Reading) -> Iterator[dict[str, Any]]:
    try:
        file = pq.ParquetFile(path)
        names = set(file.schema_arrow.names)
        by_id = names & set(QUERY) and names & set(DOCUMENT)
        columns = sorted(names & (FIELDS if by_id else FIELDS | TEXT_FIELDS))
        size, rows = path.stat().st_size, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=8192, columns=columns or None):
            yield from batch.to_pylist()
            reading.advance(size * batch.num_rows // rows)
    except UnicodeDecodeError as error:
        problem = f"text that is not UTF-8: {error}"
        raise InputError(problem, file=path, remedy="write the file again, in UTF-8") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        problem = f"damaged, or not Parquet: {' '.join(str(error).split())}"
        raise InputError(problem, file=path, remedy="copy the file again") from error


def split_line(text: str) -> list[str]:
    """Split a line at its tabs, or at spaces if it has none."""
    return [cell.strip() for cell in text.split("\t")] if "\t" in text else text.split()


def is_header(cells: list[str]) -> bool:
    """Whether a first line is a header: at least two of its cells are known column names.

    Example:
        >>> is_header(["qid", "pid", "Score"]), is_header(["qid", "11", "2.5"])
        (True, False)
    """
    return sum(cell.lower() in HEADER | {"query", "document"} for cell in cells) >= 2


def read_tsv(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read `query document score`, or the columns that a header names."""
    order = (0, 1, 2)
    for place, (number, text) in enumerate(file_lines(path, reading)):
        cells = split_line(text)
        if place == 0 and is_header(cells):
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


def _pair(query: str, document: str, score: Any, path: Path, number: int) -> ScoredPair:
    return ScoredPair(
        to_id(query, "query", path, number),
        to_id(document, "document", path, number),
        to_score(score, path, number),
        number,
    )


def _header(names: list[str], path: Path) -> tuple[int, int, int]:
    columns = [
        next((names.index(name) for name in synonyms if name in names), None)
        for synonyms in ((*QUERY, "query"), (*DOCUMENT, "document"), SCORE)
    ]
    if None in columns:
        problem = f"the first line names {', '.join(names)}"
        raise InputError(problem, file=path, line=1, remedy="name query_id, document_id and score")
    query, document, score = (column for column in columns if column is not None)
    return query, document, score


def _columns(cells: list[str], expected: str, path: Path, number: int) -> InputError:
    return InputError(
        f"{len(cells)} columns where {expected} are expected",
        file=path,
        line=number,
        remedy=REMEDY,
    )
