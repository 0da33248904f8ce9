"""Answers about several documents as rows of a Parquet shard.

A row is one answer, or the list of candidates that a strategy was given ("listed"): with both, what
the strategy concluded can be worked out again from the files alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval_kd.store import shards as store_files
from retrieval_kd.store.requests import Answer

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("document_ids", pa.list_(pa.string())),  # in the order they were shown, or listed
        ("query_digest", pa.binary(16)),
        ("document_digests", pa.binary()),  # 16 bytes each, in that order
        ("text", pa.string()),  # the teacher's words; of a list, the strategy
        ("logs", pa.list_(pa.float32())),
        ("log_odds", pa.float32()),
        ("order", pa.list_(pa.int16())),
        ("status", pa.string()),
    ]
)
LISTED = "listed"
STATUSES = ("ok", "repaired", "unparsable", LISTED)


@dataclass(frozen=True)
class Row:
    """An answer, or (without one) a query's candidates and the strategy that was given them."""

    query_id: str
    document_ids: tuple[str, ...]
    query_digest: str
    document_digests: tuple[str, ...]
    answer: Answer | None = None
    strategy: str = ""


def as_stored(answer: Answer) -> Answer:
    """With its numbers in the 32 bits that are stored, so that what is read decides the same.

    Example:
        >>> as_stored(Answer(log_odds=0.1)).log_odds
        0.10000000149011612
    """
    logs = None if answer.logs is None else tuple(float(np.float32(x)) for x in answer.logs)
    odds = None if answer.log_odds is None else float(np.float32(answer.log_odds))
    return replace(answer, logs=logs, log_odds=odds)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a shard's table."""
    return pa.Table.from_pylist([_record(row) for row in rows], schema=SCHEMA)


def to_rows(table: pa.Table) -> list[Row]:
    """A shard's table as rows."""
    return [_row(record) for record in table.to_pylist()]


def read_answers(path: Path) -> pa.Table:
    """A shard of answers, its bytes checked against its name."""
    return store_files.read_shard(path, schema=SCHEMA)


def _record(row: Row) -> dict[str, Any]:
    answer = row.answer
    return {
        "query_id": row.query_id,
        "document_ids": list(row.document_ids),
        "query_digest": bytes.fromhex(row.query_digest),
        "document_digests": bytes.fromhex("".join(row.document_digests)),
        "text": row.strategy if answer is None else answer.text,
        "logs": None if answer is None or answer.logs is None else list(answer.logs),
        "log_odds": None if answer is None else answer.log_odds,
        "order": None if answer is None or answer.order is None else list(answer.order),
        "status": LISTED if answer is None else answer.status,
    }


def _row(record: dict[str, Any]) -> Row:
    data: bytes = record["document_digests"]
    listed = record["status"] == LISTED
    return Row(
        record["query_id"],
        tuple(record["document_ids"]),
        record["query_digest"].hex(),
        tuple(data[at : at + 16].hex() for at in range(0, len(data), 16)),
        None if listed else _answer(record),
        record["text"] if listed else "",
    )


def _answer(record: dict[str, Any]) -> Answer:
    logs, order = record["logs"], record["order"]
    return Answer(
        record["text"],
        None if logs is None else tuple(logs),
        record["log_odds"],
        None if order is None else tuple(order),
        record["status"],
    )
