"""The order bias of a pairwise teacher: its preference for a position, whatever is shown there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from retrieval_kd.store.answer_rows import Row
from retrieval_kd.store.requests import log_odds_of


@dataclass(frozen=True)
class OrderBias:
    """The preference for the document shown first.

    Args:
        pairs: answered in both orders.
        first_wins: share of answers that prefer the document shown first; 0.5 without bias.
        contradictions: share of pairs whose winner depends on the order.
        log_odds: mean of ½ (log-odds of i before j + log-odds of j before i), which is 0 without
            bias; None for answers in words.
    """

    pairs: int
    first_wins: float | None = None
    contradictions: float | None = None
    log_odds: float | None = None


def order_bias(rows: Iterable[Row]) -> OrderBias:
    """Measure the order bias of pairwise answers.

    Example:
        >>> from retrieval_kd.store.requests import Answer
        >>> shown = [(("a", "b"), 2.0), (("b", "a"), 1.0), (("a", "c"), 3.0), (("c", "a"), -4.0)]
        >>> rows = [Row("q", pair, "q", pair, Answer(log_odds=odds)) for pair, odds in shown]
        >>> order_bias(rows)
        OrderBias(pairs=2, first_wins=0.75, contradictions=0.5, log_odds=0.5)
    """
    odds: dict[tuple[str, tuple[str, ...]], float] = {}  # (query, documents shown) → log-odds
    for row in rows:
        value = log_odds_of(row.answer) if row.answer is not None else np.nan
        if not np.isnan(value):
            odds.setdefault((row.query_digest, row.document_digests), value)
    both = np.array(
        [
            (value, odds[query, (second, first)])
            for (query, (first, second)), value in odds.items()
            if first < second and (query, (second, first)) in odds
        ]
    ).reshape(-1, 2)  # (pairs, 2)
    if not len(both):
        return OrderBias(0)
    wins = np.where(both == 0, 0.5, both > 0)  # (pairs, 2), of the document shown first
    contradictions = np.sign(both[:, 0]) * np.sign(both[:, 1]) > 0
    return OrderBias(
        len(both),
        float(wins.mean()),
        float(contradictions.mean()),
        float(both.mean()) if np.isfinite(both).all() else None,
    )
