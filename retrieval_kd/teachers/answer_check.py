"""Checking stored answers row by row: shapes, places, statuses.

Checksums, missing shards, contradictions and foreign files are checked in `store_verify.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from retrieval_kd.teachers.answer_files import STATUSES


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
