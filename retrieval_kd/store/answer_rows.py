"""A row of an answer shard, as a Python object and as Parquet.

A row is either an answer or a strategy row: the candidates that a strategy started from. With both
kinds, a strategy's conclusion can be computed again from the files alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval_kd.store.requests import Answer
from retrieval_kd.store.shards import read_shard

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("document_ids", pa.list_(pa.string())),  # in the order shown; of a strategy, all
        ("query_digest", pa.binary(16)),
        ("document_digests", pa.binary()),  # 16 bytes each, in the same order
        ("text", pa.string()),  # what the model wrote, or the strategy's spec
        ("logs", pa.list_(pa.float32())),
        ("log_odds", pa.float32()),
        ("order", pa.list_(pa.int16())),
        ("status", pa.string()),
    ]
)
STRATEGY_STATUS = "listed"  # marks a strategy row
STATUSES = ("ok", "repaired", "unparsable", STRATEGY_STATUS)


@dataclass(frozen=True)
class Row:
    """An answer or, if `answer` is None, a strategy and the candidates it started from."""

    query_id: str
    document_ids: tuple[str, ...]
    query_digest: str
    document_digests: tuple[str, ...]
    answer: Answer | None = None
    strategy: str = ""


def as_stored(answer: Answer) -> Answer:
    """Round the numbers to the 32 bits that are stored, so that a resumed run decides the same.

    Example:
        >>> as_stored(Answer(log_odds=0.1)).log_odds
        0.10000000149011612
    """
    logs = None if answer.logs is None else tuple(float(np.float32(x)) for x in answer.logs)
    odds = None if answer.log_odds is None else float(np.float32(answer.log_odds))
    return replace(answer, logs=logs, log_odds=odds)


def read_answers(path: Path) -> pa.Table:
    """Read a shard of answers after checking its bytes against its name."""
    return read_shard(path, schema=SCHEMA)


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Convert rows to the table of a shard."""
    return pa.Table.from_pylist([_record(row) for row in rows], schema=SCHEMA)


def to_rows(table: pa.Table) -> list[Row]:
    """Convert the table of a shard to rows."""
    return [_row(record) for record in table.to_pylist()]


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
        "status": STRATEGY_STATUS if answer is None else answer.status,
    }


def _row(record: dict[str, Any]) -> Row:
    data: bytes = record["document_digests"]
    is_strategy = record["status"] == STRATEGY_STATUS
    return Row(
        record["query_id"],
        tuple(record["document_ids"]),
        record["query_digest"].hex(),
        tuple(data[at : at + 16].hex() for at in range(0, len(data), 16)),
        None if is_strategy else _answer(record),
        record["text"] if is_strategy else "",
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
