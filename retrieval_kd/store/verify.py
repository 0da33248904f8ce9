"""Checking a score store's files: whole, unchanged, finite, without two answers to one question.

Nothing here changes a file, but `clean`, which removes what killed writers left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.store.answer_rows import LISTED, STATUSES, read_answers
from retrieval_kd.store.index import sort_order, table_keys
from retrieval_kd.store.key import read_teacher
from retrieval_kd.store.shards import (
    SHARD_NAME,
    TEACHER_FILE,
    locked,
    read_shard,
    shard_number,
    shard_paths,
)
from retrieval_kd.store.usage import USAGE_FILE

DAMAGED = "delete the file; what it held is asked again by the next `rkd score`"
FIRST_STANDS = (
    "nothing if the first may stand (it does); else delete this teacher's folder and score again"
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do about it.

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
    """All problems of one teacher's folder; reads every shard."""
    if not folder.is_dir():
        yield Problem(folder, "not a teacher's folder", "move it out of the score store")
        return
    shards, key = shard_paths(folder), None
    if shards or (folder / TEACHER_FILE).exists():
        try:
            key = read_teacher(folder)
        except InputError as error:
            yield Problem(folder / TEACHER_FILE, error.problem, error.remedy)
    yield from _foreign_files(folder)
    yield from _missing_shards(folder, shards)
    if key is None or key.gives_scores:
        yield from _problems_of_scores(shards)
    else:
        yield from _problems_of_answers(shards, key.kind)


def _problems_of_scores(shards: list[Path]) -> Iterator[Problem]:
    tables = []
    for path in shards:
        try:
            table = read_shard(path)
        except InputError as error:
            yield Problem(path, error.problem, error.remedy or DAMAGED)
            continue
        yield from _bad_rows(path, table)
        tables.append((path, table.select(["query_digest", "document_digest", "score"])))
    yield from _conflicts(tables)


def _problems_of_answers(shards: list[Path], kind: str) -> Iterator[Problem]:
    first: dict[tuple[bytes, bytes], tuple[Path, int, Any]] = {}
    for path in shards:
        try:
            records = read_answers(path).to_pylist()
        except InputError as error:
            yield Problem(path, error.problem, error.remedy or DAMAGED)
            continue
        for row, record in enumerate(records):
            wrong = list(wrong_with(record, kind))
            yield from (Problem(path, problem, DAMAGED, row) for problem in wrong)
            if wrong or record["status"] == LISTED:
                continue
            said = (record["order"], record["log_odds"])
            asked = (record["query_digest"], record["document_digests"])
            before = first.setdefault(asked, (path, row, said))
            if before[2] != said:
                yield Problem(
                    path,
                    f"another answer than {before[0].name} row {before[1]} to the same question",
                    FIRST_STANDS,
                    row,
                )


def clean(folder: Path) -> list[Path]:
    """Remove a teacher's unfinished files; waits for a shard being written, and spares it."""
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


def _missing_shards(folder: Path, shards: list[Path]) -> Iterator[Problem]:
    numbers = {shard_number(path.name) for path in shards}
    missing = sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)
    if missing:
        listed = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
        remedy = "restore them from a copy, or run `rkd score` again: it asks for what is missing"
        yield Problem(folder, f"{len(missing)} shards are missing: {listed}", remedy)


def _bad_rows(path: Path, table: pa.Table) -> Iterator[Problem]:
    for name in table.column_names:
        if table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            yield Problem(path, f"{name} is empty", DAMAGED, row)
    scores = table["score"].to_numpy()
    for row in np.flatnonzero(~np.isfinite(scores))[:1]:
        who = f"query {table['query_id'][int(row)]}, document {table['document_id'][int(row)]}"
        yield Problem(path, f"score is {scores[row]} ({who})", DAMAGED, int(row))


def _conflicts(tables: list[tuple[Path, pa.Table]]) -> Iterator[Problem]:
    """Pairs with two different scores; the first written counts, and is named."""
    if not tables:
        return
    keys = np.concatenate([table_keys(table) for _, table in tables])
    scores = np.concatenate([table["score"].to_numpy() for _, table in tables])
    starts = np.cumsum([0, *(table.num_rows for _, table in tables)])
    order = sort_order(keys)
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (keys[order][1:] != keys[order][:-1]).any(axis=1)
    first = order[np.flatnonzero(new)[np.cumsum(new) - 1]]  # the first row of each row's pair
    differ = np.flatnonzero(~new & (scores[order] != scores[first]))
    for later, earlier in sorted(zip(order[differ].tolist(), first[differ].tolist(), strict=True)):
        shard, shard_of_first = np.searchsorted(starts, [later, earlier], side="right") - 1
        path, first_path = tables[shard][0], tables[shard_of_first][0]
        yield Problem(
            path,
            f"score {scores[later]} of a pair that {first_path.name} row "
            f"{earlier - starts[shard_of_first]} gives {scores[earlier]}",
            FIRST_STANDS,
            int(later - starts[shard]),
        )


def wrong_with(record: dict[str, object], kind: str) -> Iterator[str]:
    """What is wrong with a row of a shard, as sentences.

    Example:
        >>> row = {"query_id": "q", "document_ids": ["a", "b"], "query_digest": b"", "text": "",
        ...        "document_digests": bytes(32), "logs": None, "log_odds": None, "order": [0, 2],
        ...        "status": "ok"}
        >>> list(wrong_with(row, "listwise"))
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
    if status == "listed":
        return
    order, odds, logs = record["order"], record["log_odds"], record["logs"]
    if isinstance(order, list) and not set(order) <= set(range(len(ids))):
        yield f"order {order} names places that {len(ids)} documents do not have"
    elif isinstance(order, list) and len(set(order)) < len(order):
        yield f"order {order} names a document twice"
    if isinstance(odds, float) and odds - odds != 0:
        yield f"log_odds is {odds}"
    if isinstance(logs, list) and len(logs) != len(ids):
        yield f"{len(logs)} log-probabilities for {len(ids)} documents"
    if kind == "pairwise" and len(ids) != 2:
        yield f"a pair of {len(ids)} documents"
    if (status == "unparsable") != (order is None and odds is None):
        yield f"status {status!r}, with {'no ' if order is None and odds is None else 'an '}answer"
