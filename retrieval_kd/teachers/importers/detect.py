"""Detection of a score file's format from its first bytes and its first line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from retrieval_kd.data.numerals import finite_number, whole_number
from retrieval_kd.data.rows import Reading
from retrieval_kd.data.sources import file_lines, first_bytes
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers import score_files
from retrieval_kd.teachers.importers.records import FIELDS, TEXT_FIELDS, ScoredPair

Reader = Callable[[Path, Reading], Iterator[ScoredPair]]

FORMATS: dict[str, Reader] = {
    "hofstaetter": score_files.read_hofstaetter,
    "hard-negatives": score_files.read_hard_negatives,
    "tdist": score_files.read_tdist,
    "parquet": score_files.read_parquet,
    "trec": score_files.read_trec,
    "nested": score_files.read_nested,
    "jsonl": score_files.read_jsonl,
    "tsv": score_files.read_tsv,
}
HEAD = 1 << 20  # bytes; enough for the first line
NESTED = re.compile(r'\{\s*"((?:[^"\\]|\\.)*)"\s*:\s*\{')
PICKLE_NAMES = (".pkl", ".pickle", ".pkl.gz", ".pickle.gz")


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
    cells = score_files.split_line(text)
    if len(cells) == 5 and None not in map(finite_number, cells[:2]):
        return "hofstaetter"
    if len(text.split()) == 6 and finite_number(text.split()[4]) is not None:
        return "trec"
    if len(cells) == 3 or score_files.is_header(cells):
        return "tsv"
    problem = f"no known shape of scores: the first line has {len(cells)} columns"
    if len(cells) == 4 and whole_number(cells[3]) is not None:
        problem = "judgments (qrels), not a teacher's scores"
    raise InputError(
        problem, file=path, line=1, remedy=f"see docs/scores.md; --format is {', '.join(FORMATS)}"
    )
