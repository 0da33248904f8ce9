"""Checks of a teacher's files: whole, unchanged, finite, and without contradictory answers.

Checking changes nothing; `clean_folder` deletes what killed writers left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.files import read_sealed
from retrieval_kd.store.answers import STATUSES, STRATEGY_STATUS, read_answers
from retrieval_kd.store.key import read_teacher
from retrieval_kd.store.pair_index import sort_order, table_keys
from retrieval_kd.store.shards import (
    DAMAGED,
    SHARD_NAME,
    SHARDS,
    TEACHER_FILE,
    locked,
    read_shard,
    shard_number,
    shard_paths,
)
from retrieval_kd.store.usage import USAGE_FILE

CONTRADICTION = (
    "nothing, if the first answer may count (it does); else delete this teacher's folder and score "
    "again"
)


@dataclass(frozen=True)
class Problem:
    """A problem with a file, and its remedy.

    Example:
        >>> print(Problem(Path("s/shard-1.parquet"), "score is nan", "delete the file", row=4))
        s/shard-1.parquet: row 4: score is nan. To fix: delete the file.
    """

    file: Path
    problem: str
    remedy: str
    row: int | None = None  # counted from 0

    def __str__(self) -> str:
        row = "" if self.row is None else f"row {self.row}: "
        return f"{self.file}: {row}{self.problem}. To fix: {self.remedy}."


def verify_folder(folder: Path) -> Iterator[Problem]:
    """Check a teacher's folder; every shard is read."""
    if not folder.is_dir():
        yield Problem(folder, "not a teacher's folder", "move it out of the score store")
        return
    shards, key, written = shard_paths(folder), None, 0
    if shards or (folder / TEACHER_FILE).exists():
        try:
            key = read_teacher(folder)
            written = read_sealed(folder / TEACHER_FILE).get(SHARDS, 0)
        except InputError as error:
            yield Problem(folder / TEACHER_FILE, error.problem, error.remedy)
    yield from _foreign_files(folder)
    yield from _missing_shards(folder, shards, written)
    if key is None or key.is_pointwise:
        yield from _verify_scores(shards)
    else:
        yield from _verify_answers(shards, key.kind)


def clean_folder(folder: Path) -> list[Path]:
    """Delete a teacher's unfinished files, after any shard being written is complete."""
    with locked(folder):
        leftovers = sorted(folder.glob(".*.part"))
        for path in leftovers:
            path.unlink()
    return leftovers


def _foreign_files(folder: Path) -> Iterator[Problem]:
    for path in sorted(folder.iterdir()):
        ours = path.name in (TEACHER_FILE, USAGE_FILE) or SHARD_NAME.fullmatch(path.name)
        if not ours and not path.name.startswith("."):
            yield Problem(
                path, "neither teacher.json, usage.jsonl nor a shard; it is ignored", "move it away"
            )


def _missing_shards(folder: Path, shards: list[Path], written: int) -> Iterator[Problem]:
    numbers = {shard_number(path.name) for path in shards}
    last = max(numbers | {written})
    missing = last - len(numbers)
    if missing > 0:
        first = islice((number for number in range(1, last + 1) if number not in numbers), 10)
        listed = ", ".join(map(str, first)) + (", …" if missing > 10 else "")
        remedy = "restore them from a copy, or run `rkd score` again: it scores what is missing"
        yield Problem(folder, f"{missing} shards are missing: {listed}", remedy)


def _verify_scores(shards: list[Path]) -> Iterator[Problem]:
    tables = []
    for path in shards:
        try:
            table = read_shard(path)
        except InputError as error:
            yield Problem(path, error.problem, error.remedy or DAMAGED)
            continue
        yield from _bad_scores(path, table)
        tables.append((path, table.select(["query_digest", "document_digest", "score"])))
    yield from _contradictory_scores(tables)


def _bad_scores(path: Path, table: pa.Table) -> Iterator[Problem]:
    for name in table.column_names:
        if table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            yield Problem(path, f"{name} is empty", DAMAGED, row)
    scores = table["score"].to_numpy()
    for row in np.flatnonzero(~np.isfinite(scores))[:1]:
        pair = f"query {table['query_id'][int(row)]}, document {table['document_id'][int(row)]}"
        yield Problem(path, f"score is {scores[row]} ({pair})", DAMAGED, int(row))


def _contradictory_scores(tables: list[tuple[Path, pa.Table]]) -> Iterator[Problem]:
    """Find pairs with two different scores; the message names the first, which counts."""
    if not tables:
        return
    keys = np.concatenate([table_keys(table) for _, table in tables])  # (n, 2)
    scores = np.concatenate([table["score"].to_numpy() for _, table in tables])  # (n,)
    starts = np.cumsum([0, *(table.num_rows for _, table in tables)])
    order = sort_order(keys[:, 0], keys[:, 1])
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    first = order[np.flatnonzero(new)[np.cumsum(new) - 1]]  # the first row of each row's pair
    differ = np.flatnonzero(~new & (scores[order] != scores[first]))
    for later, earlier in sorted(zip(order[differ].tolist(), first[differ].tolist(), strict=True)):
        shard, first_shard = np.searchsorted(starts, [later, earlier], side="right") - 1
        yield Problem(
            tables[shard][0],
            f"score {scores[later]} of a pair whose score in {tables[first_shard][0].name} row "
            f"{earlier - starts[first_shard]} is {scores[earlier]}",
            CONTRADICTION,
            int(later - starts[shard]),
        )


def _verify_answers(shards: list[Path], kind: str) -> Iterator[Problem]:
    first: dict[tuple[bytes, bytes], tuple[Path, int, Any]] = {}  # request → its first answer
    for path in shards:
        try:
            records = read_answers(path).to_pylist()
        except InputError as error:
            yield Problem(path, error.problem, error.remedy or DAMAGED)
            continue
        for row, record in enumerate(records):
            problems = list(problems_of_answer(record, kind))
            yield from (Problem(path, problem, DAMAGED, row) for problem in problems)
            if problems or record["status"] == STRATEGY_STATUS:
                continue
            answer = (record["order"], record["log_odds"])
            request = (record["query_digest"], record["document_digests"])
            earlier = first.setdefault(request, (path, row, answer))
            if earlier[2] != answer:
                yield Problem(
                    path,
                    f"another answer than {earlier[0].name} row {earlier[1]} to the same request",
                    CONTRADICTION,
                    row,
                )


def problems_of_answer(record: dict[str, object], kind: str) -> Iterator[str]:
    """Check one row of a shard of answers.

    Example:
        >>> row = {"query_id": "q", "document_ids": ["a", "b"], "query_digest": b"", "text": "",
        ...        "document_digests": bytes(32), "logs": None, "log_odds": None, "order": [0, 2],
        ...        "status": "ok"}
        >>> list(problems_of_answer(row, "listwise"))
        ['order [0, 2] names places that 2 documents do not have']
    """
    for name in ("query_id", "document_ids", "query_digest", "document_digests", "text", "status"):
        if record[name] is None:
            yield f"{name} is empty"
            return
    ids, data, status = record["document_ids"], record["document_digests"], record["status"]
    assert isinstance(ids, list) and isinstance(data, bytes)
    if len(data) != 16 * len(ids):
        yield f"{len(data)} bytes of digests for {len(ids)} documents"
    if status not in STATUSES:
        yield f"status {status!r} is none of {', '.join(STATUSES)}"
    if status == STRATEGY_STATUS:
        return
    order, odds, logs = record["order"], record["log_odds"], record["logs"]
    if isinstance(order, list) and not set(order) <= set(range(len(ids))):
        yield f"order {order} names places that {len(ids)} documents do not have"
    elif isinstance(order, list) and len(set(order)) < len(order):
        yield f"order {order} names a document twice"
    if isinstance(odds, float) and not np.isfinite(odds):
        yield f"log_odds is {odds}"
    if isinstance(logs, list) and len(logs) != len(ids):
        yield f"{len(logs)} log-probabilities for {len(ids)} documents"
    if kind == "pairwise" and len(ids) != 2:
        yield f"a pair of {len(ids)} documents"
    empty = order is None and odds is None
    if (status == "unparsable") != empty:
        yield f"status {status!r} with {'no' if empty else 'an'} answer"
