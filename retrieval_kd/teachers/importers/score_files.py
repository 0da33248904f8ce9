"""Readers of published score files: JSON lines, Parquet, TSV, TREC runs and two special shapes.

Every reader yields checked `ScoredPair`s, or raises an InputError with the file and line.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_kd.data.rows import Reading
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import InputError

QUERY = ("query_id", "qid", "query-id", "queryid", "topic")
DOCUMENT = (
    *("document_ids", "doc_ids", "docids", "docnos", "pids", "passage_ids", "docs"),
    *("document_id", "doc_id", "docid", "docno", "pid", "passage_id", "corpus_id", "corpus-id"),
)
SCORE = ("scores", "score", "ce-score", "ce_score", "logits", "logit")
RANK = ("rank", "ranks", "ranking")
MARGIN = ("positive_id", "negative_id", "positive_ids", "negative_ids", "pos_id", "neg_id")
FIELDS = frozenset((*QUERY, *DOCUMENT, *SCORE, *RANK, *MARGIN))
HEADER = FIELDS - {*RANK, *MARGIN}  # column names of a header line
PATIENCE = 1000  # lines of hard negatives without one score before the file is refused


class ScoredPair(NamedTuple):
    """A score of a pair from a file; `line` (or row) counts from 1."""

    query_id: str
    document_id: str
    score: float
    line: int


def read_jsonl(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read objects with a query ID, document ID(s) and score(s); see `record_pairs`."""
    for number, value in _values(path, reading, dict):
        yield from record_pairs(value, path, number)


def read_tdist(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read `[query, [document, score], [document, score], …]`.

    This is the format of ColBERT's n-way triples and of TDist scores.
    """
    for number, value in _values(path, reading, list):
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
    for number, value in _values(path, reading, dict):
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


def _values(path: Path, reading: Reading, kind: type) -> Iterator[tuple[int, Any]]:
    for number, text in file_lines(path, reading):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            problem = f"not JSON: {error}"
            remedy = "correct the line, or name the file's shape with --format"
            raise InputError(problem, file=path, line=number, remedy=remedy) from error
        if not isinstance(value, kind):
            expected = "an object {…}" if kind is dict else "a list […]"
            raise InputError(
                f"{type(value).__name__} where {expected} is expected", file=path, line=number
            )
        yield number, value


def read_parquet(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read rows with a pair or a query's list, such as Rank-DistiLLM's; see `record_pairs`."""
    try:
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in FIELDS]
        size, rows = path.stat().st_size, max(1, file.metadata.num_rows)
        number = 0
        for batch in file.iter_batches(batch_size=8192, columns=columns or None):
            for record in batch.to_pylist():
                number += 1
                yield from record_pairs(record, path, number)
            reading.advance(size * batch.num_rows // rows)
    except (pa.ArrowException, OSError) as error:
        problem = f"damaged, or not Parquet: {error}"
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
    return sum(cell.lower() in HEADER for cell in cells) >= 2


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
    columns = [
        next((names.index(name) for name in synonyms if name in names), None)
        for synonyms in (QUERY, DOCUMENT, SCORE)
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
        remedy="correct the line, or name the file's shape with --format",
    )


def record_pairs(record: dict[str, Any], file: Path, line: int) -> Iterator[ScoredPair]:
    """Read the pairs of one record.

    Example:
        >>> here = Path("scores.jsonl"), 1
        >>> [pair[:3] for pair in record_pairs({"qid": 7, "pid": "a", "score": 2}, *here)]
        [('7', 'a', 2.0)]
        >>> listed = {"query_id": "7", "doc_ids": "[4, 5]", "scores": [0.5, -1]}
        >>> [pair[:3] for pair in record_pairs(listed, *here)]
        [('7', '4', 0.5), ('7', '5', -1.0)]
        >>> [pair[:3] for pair in record_pairs({"qid": 7, "scores": {"a": 2, "b": 1}}, *here)]
        [('7', 'a', 2.0), ('7', 'b', 1.0)]
    """
    query = first_value(record, QUERY)
    documents, scores = _list(first_value(record, DOCUMENT)), _list(first_value(record, SCORE))
    if query is None:
        raise InputError(
            f"no query ID among the fields {', '.join(map(str, record))}",
            file=file,
            line=line,
            remedy=f"name the field {' or '.join(QUERY[:2])}",
        )
    query_id = to_id(query, "query", file, line)
    if documents is None and isinstance(scores, dict):
        documents, scores = list(scores), list(scores.values())
    if documents is None:
        raise _no_document(record, file, line)
    if not isinstance(documents, list):
        if isinstance(scores, list):
            raise InputError("a list of scores for one document", file=file, line=line)
        documents, scores = [documents], None if scores is None else [scores]
    elif scores is None and documents and all(map(_is_scored, documents)):
        documents, scores = map(list, zip(*map(_split, documents), strict=True))
    if scores is None:
        raise only_ranks(file, line)
    if not isinstance(scores, list):
        raise InputError("one score for a list of documents", file=file, line=line)
    if len(scores) != len(documents):
        raise InputError(
            f"{len(documents)} documents but {len(scores)} scores", file=file, line=line
        )
    for document, score in zip(documents, scores, strict=True):
        document_id = to_id(document, "document", file, line)
        yield ScoredPair(query_id, document_id, to_score(score, file, line), line)


def first_value(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of these fields that is present."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def _list(value: Any) -> Any:
    """Parse a list that was stored as text (JSON or Python literals) without running any code."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value


def _is_scored(document: Any) -> bool:
    if isinstance(document, dict):
        return first_value(document, SCORE) is not None
    return isinstance(document, (list, tuple)) and len(document) == 2


def _split(document: Any) -> tuple[Any, Any]:
    if isinstance(document, dict):
        return first_value(document, (*DOCUMENT, "id", "_id")), first_value(document, SCORE)
    return document[0], document[1]


def _no_document(record: dict[str, Any], file: Path, line: int) -> InputError:
    if any(name in record for name in MARGIN):
        return InputError(
            "margins between two documents, not scores",
            file=file,
            line=line,
            remedy="import the file with one score per pair; a margin cannot be taken apart",
        )
    return InputError(
        f"no document ID among the fields {', '.join(map(str, record))}",
        file=file,
        line=line,
        remedy="name the field document_id, or document_ids for a list",
    )


def to_id(value: Any, noun: str, file: Path, line: int) -> str:
    """Check an ID and convert it to text.

    Example:
        >>> to_id(867436, "query", Path("scores.jsonl"), 1)
        '867436'
        >>> to_id(1.5, "query", Path("scores.jsonl"), 1)
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: scores.jsonl:1: query ID 1.5 is neither text nor a whole \
number
    """
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        problem = f"{noun} ID {value!r:.80} is neither text nor a whole number"
        raise InputError(problem, file=file, line=line)
    text = value.strip()
    if not text:
        raise InputError(f"empty {noun} ID", file=file, line=line)
    if len(text.split(None, 1)) > 1:
        raise InputError(
            f"{noun} ID with whitespace",
            file=file,
            line=line,
            id=f"{text:.60}",
            remedy="is this a text? Scores are imported by ID",
        )
    return text


def to_score(value: Any, file: Path, line: int) -> float:
    """Check a score, a number or its text, and convert it to a finite float.

    Example:
        >>> to_score("-3.25", Path("scores.tsv"), 1)
        -3.25
    """
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"score {value!r:.60} is not a finite number", file=file, line=line)
    return score


def only_ranks(file: Path, line: int) -> InputError:
    """The error for an order without scores."""
    return InputError(
        "an order of documents without scores",
        file=file,
        line=line,
        remedy="import a file with the teacher's own scores: a rank says which document is better "
        "but not by how much, so as a pointwise score it would be made up",
    )
