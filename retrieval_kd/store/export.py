"""Export of stored scores and answers to files that other tools read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_kd.data.runs import Run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_path
from retrieval_kd.store.answers import AnswerStore, to_table
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore

COLUMNS = ["query_id", "document_id", "score"]
SCORE_SUFFIXES = (".tsv", ".jsonl", ".parquet", ".trec")
ANSWER_SUFFIXES = (".jsonl", ".parquet")


def export_scores(store: ScoreStore, key: TeacherKey, out: str | Path) -> int:
    """Write a teacher's scores, whole or not at all, in the format of the suffix.

    `.tsv` and `.jsonl`: query_id, document_id, score; `.parquet`: with the digests; `.trec`: a run.
    A comparing teacher's answers are written unchanged to `.jsonl` or `.parquet`.

    Returns:
        The number of scores or answers.

    Raises:
        InputError: the suffix is not one of these, or there is nothing to export.
    """
    path = Path(out)
    if not key.is_pointwise:
        return _export_answers(AnswerStore(store.folder(key), key), path)
    if path.suffix not in SCORE_SUFFIXES:
        remedy = f"name a file that ends in {', '.join(SCORE_SUFFIXES)}"
        what = f"scores cannot be exported to {path.suffix or 'a file without a suffix'}"
        raise InputError(what, file=path, remedy=remedy)
    table = store.read(key)
    with atomic_path(path) as temporary:
        match path.suffix:
            case ".parquet":
                pq.write_table(table, temporary, compression="zstd")
            case ".trec":
                _write_trec(table, temporary, key)
            case ".jsonl":
                rows = (
                    (query, document, float(score)) for query, document, score in _columns(table)
                )
                records = (dict(zip(COLUMNS, row, strict=True)) for row in rows)
                _write_lines(temporary, (json.dumps(r, ensure_ascii=False) for r in records))
            case ".tsv":
                _write_lines(temporary, map("\t".join, chain([COLUMNS], _columns(table))))
    return table.num_rows


def _export_answers(answers: AnswerStore, path: Path) -> int:
    """Write the first answer to each request."""
    if path.suffix not in ANSWER_SUFFIXES:
        raise InputError(
            "answers of comparing teachers cannot be exported to "
            f"{path.suffix or 'a file without a suffix'}",
            file=path,
            remedy="name a file that ends in .jsonl or .parquet",
        )
    rows = [(row, row.answer) for row in answers.rows() if row.answer is not None]
    if not rows:
        raise InputError("no answers of this teacher", file=answers.folder, id=answers.key.model)
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(to_table([row for row, _ in rows]), temporary, compression="zstd")
        else:
            ids = ({"query_id": r.query_id, "document_ids": r.document_ids} for r, _ in rows)
            records = (i | asdict(answer) for i, (_, answer) in zip(ids, rows, strict=True))
            _write_lines(temporary, (json.dumps(r, ensure_ascii=False) for r in records))
    return len(rows)


def _columns(table: pa.Table) -> Iterator[tuple[str, str, str]]:
    """Query ID, document ID and score, in the fewest digits that identify the 32-bit number."""
    for batch in table.select(COLUMNS).to_batches():
        queries, documents, scores = batch.columns
        yield from zip(
            queries.to_pylist(),
            documents.to_pylist(),
            scores.cast("string").to_pylist(),
            strict=True,
        )


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.writelines(f"{line}\n" for line in lines)


def _write_trec(table: pa.Table, path: Path, key: TeacherKey) -> None:
    results: dict[str, dict[str, float]] = {}
    for query, document, score in _columns(table):
        results.setdefault(query, {}).setdefault(document, float(score))
    write_run(Run(key.model.rstrip("/").rsplit("/", 1)[-1], results), path)
