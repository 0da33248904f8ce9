"""Readers of score files with one JSON value per line: records, hard negatives, n-way lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval_kd.data.rows import Reading
from retrieval_kd.data.sources import file_lines
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers.pairs import ScoredPair, only_ranks, to_id, to_score
from retrieval_kd.teachers.importers.records import record_pairs

PATIENCE = 1000  # lines of hard negatives without one score before the file is refused


def read_jsonl(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read objects with a query ID, document ID(s) and score(s); see `records.py`."""
    for number, value in _values(path, reading, dict):
        yield from record_pairs(value, path, number)


def read_tdist(path: Path, reading: Reading) -> Iterator[ScoredPair]:
    """Read `[query, [document, score], [document, score], …]`, as by ColBERT and TDist."""
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
