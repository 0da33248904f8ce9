"""Relevance judgments: BEIR's three columns with a header, TREC's four, or JSON lines."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from retrieval_kd.data.json_lines import first_value, parse_object
from retrieval_kd.data.numerals import MOST, WHOLE, whole_number
from retrieval_kd.data.rows import Judgment, Judgments, Qrels, Reading, check_id
from retrieval_kd.data.sources import Line, Source, file_lines, parsed
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_path

__all__ = ["Qrels", "collect", "judgment_files", "judgment_readers", "read_qrels", "write_qrels"]

HEADERS = ("query-id", "query_id", "queryid", "qid", "query", "topic", "topic_id")
DOCUMENTS = (
    *("corpus-id", "corpus_id", "document_id", "doc_id", "docid", "docno", "pid", "passage_id"),
    *("doc", "document"),
)
GAINS = ("score", "relevance", "rel", "label", "gain", "grade")
COLUMNS = (
    "write query-id, corpus-id, score (BEIR) or query, iteration, document, relevance (TREC), "
    "separated by tabs"
)
FIELDS = 'write objects such as {"query-id": "q1", "corpus-id": "d1", "score": 1}'
NOTES = re.compile(r"(?:^|/)(?:readme|licen[cs]e)[^/]*$", re.IGNORECASE)
ENDINGS = ("tsv", "txt", "jsonl")  # of the files of judgments in a collection, the first preferred


def read_qrels(path: str | Path) -> Qrels:
    """Read a BEIR or TREC file of judgments, recognised by its number of columns.

    Example:
        >>> import tempfile; path = Path(tempfile.mkdtemp()) / "qrels.tsv"
        >>> write_qrels({"q1": {"d1": 1, "d2": 0}}, path)
        >>> read_qrels(path)
        {'q1': {'d1': 1, 'd2': 0}}
    """
    reading = Reading()
    qrels = collect(_parse(file_lines(path, reading), str(path), reading), reading)
    reading.drops.warn(str(path))
    if not qrels:
        raise InputError("no judgment at all", file=path, remedy=COLUMNS)
    return qrels


def write_qrels(qrels: Qrels, path: str | Path) -> None:
    """Write BEIR's form: a header, then query, document and gain, separated by tabs."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write("query-id\tcorpus-id\tscore\n")
        for query_id, judged in qrels.items():
            for document_id, gain in judged.items():
                check_id(query_id, "query")
                check_id(document_id, "document")
                out.write(f"{query_id}\t{document_id}\t{gain}\n")


def judgment_readers(source: Source, files: dict[str, str]) -> dict[str, Judgments]:
    """Return the readers of a folder's or zip's judgments, given as split → file."""
    return {split: partial(parsed, _parse, source, name) for split, name in files.items()}


def judgment_files(source: Source, start: str, split: str) -> tuple[dict[str, str], list[str]]:
    """Find a collection's files of judgments, by their names.

    Args:
        start: how the names of all files of judgments begin.
        split: a pattern of what follows up to the ending, with the split as its group.

    Returns:
        split → file, and the files that are not read.

    Raises:
        InputError: no file has an ending that is read, or one is both plain and gzipped.
    """
    here = [n for n in source.names if n.startswith(start) and not NOTES.search(n)]
    files: dict[str, str] = {}
    for ending in ENDINGS:
        for name in here:
            if match := re.fullmatch(rf"{re.escape(start)}{split}\.{ending}(\.gz)?", name):
                source.one(name.removesuffix(".gz"))  # refuses a file both plain and gzipped
                files.setdefault(match[1] or "test", name)
    unread = [name for name in here if name not in files.values()]
    if unread and not files:
        remedy = f"name it SPLIT.{ENDINGS[0]}, .{' or .'.join(ENDINGS[1:])}, and write it so"
        raise InputError("judgments in no known form", file=source.label(unread[0]), remedy=remedy)
    return files, [source.label(name) for name in unread]


def _parse(lines: Iterable[Line], file: str, reading: Reading) -> Iterator[Judgment]:
    """Parse lines into judgments; a header is recognised by the name of its first column."""
    for place, (number, text) in enumerate(lines):
        if text.lstrip().startswith("{") and text.rstrip().endswith("}"):
            query_id, document_id, gain = _record(text, file, number, reading)
        else:
            cells = [c.strip(" ") for c in text.split("\t")] if "\t" in text else text.split()
            if place == 0 and _is_header(cells, file, number):
                continue
            if len(cells) not in (3, 4):
                problem = f"{len(cells)} columns where 3 or 4 are expected"
                raise InputError(problem, file=file, line=number, remedy=COLUMNS)
            if place == 0 and len(cells) == 3:
                reading.drops.add("qrels without a header, first line read as a judgment", file)
            query_id, document_id, gain = cells[0], cells[-2], cells[-1]
        check_id(query_id, "query", file, number)
        check_id(document_id, "document", file, number)
        yield Judgment(query_id, document_id, _gain(gain, file, number), file, number)


def _is_header(cells: list[str], file: str, number: int) -> bool:
    if cells[0].lower() not in HEADERS or whole_number(cells[-1]) is not None:
        return False
    if cells[-1].lower() in (*HEADERS, *DOCUMENTS):
        problem = f"the header's last column is {cells[-1]}, where the gain is expected"
        raise InputError(problem, file=file, line=number, remedy=COLUMNS)
    return True


def _record(text: str, file: str, number: int, reading: Reading) -> tuple[str, str, Any]:
    """Parse one JSON object; IDs may be whole numbers, as everywhere."""
    record = parse_object(text, file, number, FIELDS)
    ids = []
    for names in (HEADERS, DOCUMENTS):
        id = first_value(record, names)
        if type(id) is int:
            reading.drops.add("number as ID read as text", f"{file}:{number}")
            id = str(id)
        if not isinstance(id, str):
            problem = f"no {names[0]}" if id is None else f"an ID that is no text: {id!r:.40}"
            raise InputError(problem, file=file, line=number, remedy=FIELDS)
        ids.append(id)
    return ids[0], ids[1], first_value(record, GAINS)


def _gain(value: Any, file: str, line: int) -> int:
    gain = whole_number(value)
    if gain is None:
        problem = f"gain {value!r:.40} is not a whole number"
        is_number = isinstance(value, int | float) and abs(value) > MOST
        if is_number or (isinstance(value, str) and WHOLE.fullmatch(value)):
            problem = f"gain {value!r:.40} is too large"
        remedy = "write 0 for not relevant, 1, 2, … for relevant"
        raise InputError(problem, file=file, line=line, remedy=remedy)
    return gain


def collect(
    judgments: Iterable[Judgment],
    reading: Reading,
    queries: Container[str] | None = None,
    documents: Container[str] | None = None,
) -> Qrels:
    """Group judgments by query, in the order of the file, by the policy of `docs/data.md`.

    Judgments of a query or document that is not among `queries` or `documents` are dropped and
    counted. A negative gain (spam, in TREC's web tracks) counts as 0.
    """
    qrels: Qrels = {}
    drops = reading.drops
    for query_id, document_id, gain, file, line in judgments:
        where = f"{query_id} {document_id}" + (f" at {file}:{line}" if file else "")
        if queries is not None and query_id not in queries:
            drops.add("judgment of an unknown query dropped", where)
            continue
        if documents is not None and document_id not in documents:
            drops.add("judgment of an unknown document dropped", where)
            continue
        if gain < 0:
            drops.add("negative gain read as 0", where)
            gain = 0
        judged = qrels.setdefault(query_id, {})
        if judged.get(document_id, gain) != gain:
            problem = f"judged twice, {judged[document_id]} and {gain}: query {query_id}"
            remedy = "keep one of the two lines"
            raise InputError(problem, file=file, line=line, id=document_id, remedy=remedy)
        if document_id in judged:
            drops.add("repeated judgment", where)
        judged[document_id] = gain
    return qrels
