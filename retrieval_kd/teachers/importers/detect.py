"""Detection of a score file's format from its first bytes and its first line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from retrieval_kd.data.rows import Reading
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers import score_files
from retrieval_kd.teachers.importers.score_files import ScoredPair

Reader = Callable[[Path, Reading], Iterator[ScoredPair]]

FORMATS: dict[str, Reader] = {
    "hofstaetter": score_files.read_hofstaetter,
    "hard-negatives": score_files.read_hard_negatives,
    "tdist": score_files.read_tdist,
    "parquet": score_files.read_parquet,
    "trec": score_files.read_trec,
    "jsonl": score_files.read_jsonl,
    "tsv": score_files.read_tsv,
}
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
    head = _head(path)
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
    line = next(filter(None, (row.strip() for row in head.splitlines())), b"")
    text = line.decode("utf-8-sig", errors="replace")
    if not text:
        raise InputError("an empty file", file=path)
    return _of_json(line) if text[0] in "{[" else _of_cells(text, path)


def reader(path: Path, format: str | None) -> tuple[str, Reader]:
    """The format's name and reader; by default the format is detected."""
    if format is not None and format not in FORMATS:
        raise InputError(f"unknown format {format!r}", remedy=f"one of {', '.join(FORMATS)}")
    name = format or detect(path)
    if format is not None:
        _head(path)
    return name, FORMATS[name]


def _head(path: Path, size: int = 1 << 20) -> bytes:
    """The first bytes, decompressed; enough for the first line."""
    if not path.is_file():
        raise InputError("no such file", file=path, remedy="check the path")
    with open(path, "rb") as raw:
        if raw.read(2) != b"\x1f\x8b":
            raw.seek(0)
            return raw.read(size)
    if not path.name.endswith(".gz"):
        raise InputError("gzipped, but its name does not say so", file=path, remedy="add .gz to it")
    try:
        with gzip.open(path) as unzipped:
            return unzipped.read(size)
    except (EOFError, OSError, zlib.error) as error:
        problem = f"damaged or cut off: {error}"
        raise InputError(problem, file=path, remedy="copy the file again") from error


def _of_json(line: bytes) -> str:
    if line.startswith(b"["):
        return "tdist"
    try:
        names = set(json.loads(line))
    except ValueError:
        names = set()  # the reader reports what is wrong, and where
    return "hard-negatives" if {"qid", "neg"} <= names else "jsonl"


def _of_cells(text: str, path: Path) -> str:
    cells = score_files.split_line(text)
    if len(cells) == 5 and _is_number(cells[0]) and _is_number(cells[1]):
        return "hofstaetter"
    if len(text.split()) == 6 and _is_number(text.split()[4]):
        return "trec"
    if len(cells) == 3 or score_files.is_header(cells):
        return "tsv"
    problem = f"no known shape of scores: the first line has {len(cells)} columns"
    if len(cells) == 4 and cells[3].isdecimal():
        problem = "judgments (qrels), not a teacher's scores"
    raise InputError(
        problem, file=path, line=1, remedy=f"see docs/scores.md; --format is {', '.join(FORMATS)}"
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
