"""A teacher's stored answers in numbers (how many, how they parsed, order bias) and as a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_path
from retrieval_kd.store.answer_rows import Row, to_table
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.requests import log_odds_of
from retrieval_kd.store.shards import shard_paths


@dataclass(frozen=True)
class OrderBias:
    """What a pairwise teacher gives to a place, whoever stands there.

    Args:
        pairs: answered in both orders.
        first_wins: share of their answers that prefer the one shown first; unbiased: 0.5.
        contradictions: share of pairs whose winner depends on the order.
        log_odds: mean of ½ (log-odds of i before j + log-odds of j before i), which is 0 for a
            teacher that does not look at places; None where it answered in words.
    """

    pairs: int
    first_wins: float | None = None
    contradictions: float | None = None
    log_odds: float | None = None


def order_bias(rows: Iterable[Row]) -> OrderBias:
    """The order bias of pairwise answers.

    Example:
        >>> from retrieval_kd.store.requests import Answer
        >>> shown = [(("a", "b"), 2.0), (("b", "a"), 1.0), (("a", "c"), 3.0), (("c", "a"), -4.0)]
        >>> rows = [Row("q", pair, "q", pair, Answer(log_odds=odds)) for pair, odds in shown]
        >>> order_bias(rows)
        OrderBias(pairs=2, first_wins=0.75, contradictions=0.5, log_odds=0.5)
    """
    odds: dict[tuple[str, tuple[str, ...]], float] = {}
    for row in rows:
        if row.answer is not None and log_odds_of(row.answer) == log_odds_of(row.answer):
            odds.setdefault((row.query_digest, row.document_digests), log_odds_of(row.answer))
    both = np.array(
        [
            (first, odds[query, (two, one)])
            for (query, (one, two)), first in odds.items()
            if one < two and (query, (two, one)) in odds
        ]
    ).reshape(-1, 2)  # (pairs, 2)
    if not len(both):
        return OrderBias(0)
    wins = np.where(both == 0, 0.5, both > 0)  # (pairs, 2), of the one shown first
    contradictions = np.sign(both[:, 0]) * np.sign(both[:, 1]) > 0
    told = bool(np.isfinite(both).all())
    return OrderBias(
        len(both),
        float(wins.mean()),
        float(contradictions.mean()),
        float(both.mean()) if told else None,
    )


@dataclass(frozen=True)
class AnswerSummary:
    """One teacher's answers in numbers, each question counted once."""

    model: str
    fingerprint: str
    kind: str
    prompt: str
    dtype: str
    max_length: int | None
    questions: int
    queries: int
    shown: dict[str, float]  # documents in a question: min, median, max
    statuses: dict[str, int]  # ok, repaired, unparsable
    strategies: dict[str, int]  # strategy → queries it was given
    order_bias: OrderBias | None
    shards: int
    bytes: int


def summarise_answers(answers: AnswerStore) -> AnswerSummary:
    """Read all of a teacher's shards and count."""
    key, rows = answers.key, list(answers.rows())
    given = [row for row in rows if row.answer is not None]
    sizes = [len(row.document_digests) for row in given]
    shards = shard_paths(answers.folder)
    statuses = Counter(row.answer.status for row in given if row.answer)
    return AnswerSummary(
        model=key.model,
        fingerprint=key.fingerprint,
        kind=key.kind,
        prompt=key.prompt,
        dtype=key.dtype,
        max_length=key.max_length,
        questions=len(given),
        queries=len({row.query_digest for row in rows}),
        shown={
            name: float(getattr(np, name)(sizes)) if sizes else 0.0
            for name in ("min", "median", "max")
        },
        statuses={name: statuses[name] for name in ("ok", "repaired", "unparsable")},
        strategies=dict(Counter(row.strategy for row in rows if row.answer is None)),
        order_bias=order_bias(given) if key.kind == "pairwise" else None,
        shards=len(shards),
        bytes=sum(path.stat().st_size for path in shards),
    )


def export_answers(answers: AnswerStore, path: Path) -> int:
    """Write every question's first answer, whole or not at all: `.jsonl` or `.parquet`.

    Raises:
        InputError: another suffix, or no answers.
    """
    rows = [row for row in answers.rows() if row.answer is not None]
    if path.suffix not in (".jsonl", ".parquet"):
        raise InputError(
            f"cannot export answers about several documents as {path.suffix or 'nothing'}",
            file=path,
            remedy="name a file that ends in .jsonl or .parquet",
        )
    if not rows:
        raise InputError("no answers of this teacher", file=answers.folder, id=answers.key.model)
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            pq.write_table(to_table(rows), temporary, compression="zstd")
        else:
            with open(temporary, "w", encoding="utf-8", newline="\n") as out:
                for row in rows:
                    told = {"query_id": row.query_id, "document_ids": row.document_ids}
                    answer = {} if row.answer is None else asdict(row.answer)
                    out.write(json.dumps({**told, **answer}, ensure_ascii=False) + "\n")
    return len(rows)
