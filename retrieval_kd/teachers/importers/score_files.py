"""Readers of published score files: JSON lines, Parquet, TSV, TREC runs and special shapes.

Every reader yields checked `ScoredPair`s, or raises an InputError with the file and line.
`records.py` reads one object or row; `detect` chooses the reader by a file's first bytes and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_kd.data.json_lines import json_objects, parse_json
from retrieval_kd.data.numerals import finite_number, whole_number
from retrieval_kd.data.rows import Reading
from retrieval_kd.data.sources import file_lines, first_bytes
from retrieval_kd.errors import InputError, kind_of
from retrieval_kd.teachers.importers.records import (
    DOCUMENT,
    FIELDS,
    HEADER,
    QUERY,
    SCORE,
    TEXT_FIELDS,
    TEXTS,
    ScoredPair,
    is_judgment,
    only_ranks,
    record_pairs,
    to_id,
    to_score,
)

REMEDY = "correct the line, or name the file's shape with --format"
PATIENCE = 1000  # lines of hard negatives without one score before the file is refused
HEAD = 1 << 20  # bytes; enough for the first line
NESTED = re.compile(r'\{\s*"((?:[^"\\]|\\.)*)"\s*:\s*\{')
PICKLE_NAMES = (".pkl", ".pickle", ".pkl.gz", ".pickle.gz")

Reader = Callable[[Path, Reading], Iterator[ScoredPair]]


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
        texts = {"query", *TEXTS} if by_id else TEXT_FIELDS
        columns = sorted(names & (FIELDS | texts))
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
    order, width, judged = (0, 1, 2), 3, False
    texts: tuple[int | None, int | None] = (None, None)
    for place, (number, text) in enumerate(file_lines(path, reading)):
        cells = split_line(text)
        if place == 0 and is_header(cells):
            names = [cell.lower() for cell in cells]
            order, judged = _header(names, path), is_judgment(names)
            texts, width = _text_columns(names, order), len(names)
            continue
        if len(cells) <= max(order) or (order == (0, 1, 2) and len(cells) != width):
            raise _columns(cells, "query, document, score", path, number)
        query, document, score = (cells[column] for column in order)
        pair = _pair(query, document, score, path, number)
        given, text = (
            cells[column] if column is not None and column < len(cells) else "" for column in texts
        )
        yield pair._replace(query=given or None, document=(text,) if text else (), judged=judged)


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


def _text_columns(names: list[str], order: tuple[int, int, int]) -> tuple[int | None, int | None]:
    """The columns with the texts of query and document beside their IDs, if there are any."""
    query, document = (
        next((names.index(name) for name in known if name in names), None)
        for known in (("query",), TEXTS)
    )
    return None if query in order else query, None if document in order else document


def _columns(cells: list[str], expected: str, path: Path, number: int) -> InputError:
    return InputError(
        f"{len(cells)} columns where {expected} are expected",
        file=path,
        line=number,
        remedy=REMEDY,
    )


FORMATS: dict[str, Reader] = {
    "hofstaetter": read_hofstaetter,
    "hard-negatives": read_hard_negatives,
    "tdist": read_tdist,
    "parquet": read_parquet,
    "trec": read_trec,
    "nested": read_nested,
    "jsonl": read_jsonl,
    "tsv": read_tsv,
}


def detect(path: Path) -> str:
    """Detect a file's format: a key of FORMATS.

    Raises:
        InputError: the file is a pickle, or its format is unknown.

    Example:
        >>> import tempfile; path = Path(tempfile.mkdtemp()) / "scores"
        >>> _ = path.write_text("12.5\\t3.25\\tq1\\td1\\td2\\n"); detect(path)
        'hofstaetter'
        >>> _ = path.write_text("q1 Q0 d1 1 12.5 teacher\\n"); detect(path)
        'trec'
    """
    head = first_bytes(path, HEAD)
    is_pickle = head[:4] == b"(dp0" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05")
    if path.name.lower().endswith(PICKLE_NAMES) or is_pickle:
        raise InputError(
            "a pickle, which can run any program when it is opened",
            file=path,
            remedy="convert it to TSV (query, document, score) once, as docs/scores.md says, and "
            "import the result",
        )
    if head[:4] == b"PAR1":
        return "parquet"
    if next(file_lines(path, Reading()), None) is None:  # refuses what are no lines of UTF-8
        raise InputError("an empty file", file=path, remedy="give a file of scores")
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff").strip()
    return _of_json(text) if text[0] in "{[" else _of_cells(re.split("[\r\n]", text)[0], path)


def reader(path: Path, format: str | None) -> tuple[str, Reader]:
    """The format's name and reader; by default the format is detected."""
    if format is not None and format not in FORMATS:
        raise InputError(f"unknown format {format!r}", remedy=f"one of {', '.join(FORMATS)}")
    name = format or detect(path)
    return name, FORMATS[name]


def _of_json(text: str) -> str:
    """Detect a format by the first object, or by its beginning if it is longer than `text`."""
    within = re.match(r"\[\s*(?=\{)", text)
    if text[0] == "[" and within is None:
        return "tdist"
    start = within.end() if within else 0
    try:
        first, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):  # the reader reports what is wrong, and where
        nested = NESTED.match(text, start)
        return "nested" if nested and nested[1] not in FIELDS | TEXT_FIELDS else "jsonl"
    if {"qid", "neg"} <= set(first):
        return "hard-negatives"
    inner = all(isinstance(value, dict) for value in first.values())
    return "nested" if first and inner and not set(first) & (FIELDS | TEXT_FIELDS) else "jsonl"


def _of_cells(text: str, path: Path) -> str:
    cells = split_line(text)
    if len(cells) == 5 and None not in map(finite_number, cells[:2]):
        return "hofstaetter"
    if len(text.split()) == 6 and finite_number(text.split()[4]) is not None:
        return "trec"
    if len(cells) == 3 or is_header(cells):
        return "tsv"
    problem = f"no known shape of scores: the first line has {len(cells)} columns"
    if len(cells) == 4 and whole_number(cells[3]) is not None:
        problem = "judgments (qrels), not a teacher's scores"
    raise InputError(
        problem, file=path, line=1, remedy=f"see docs/scores.md; --format is {', '.join(FORMATS)}"
    )
