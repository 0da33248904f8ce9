"""Aggregates orders of candidates into one score per candidate of a query.

An order may cover only some of the candidates (a window), and may leave some of them unordered
below the others (a query for the best only). A candidate that no order covers gets NaN and not the
lowest score: no answer says anything about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from retrieval_kd.errors import InputError
from retrieval_kd.targets.aggregate_pairs import PRIOR, fit_strengths


@dataclass(frozen=True)
class Order:
    """One answer's order of candidates, which are numbers below N.

    Args:
        ranked: best first.
        below: candidates behind all of `ranked`, in no order among themselves.
    """

    ranked: tuple[int, ...]
    below: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len({*self.ranked, *self.below}) < len(self.ranked) + len(self.below):
            raise InputError(f"an order names a candidate twice: {self.ranked} {self.below}")

    def __len__(self) -> int:
        return len(self.ranked) + len(self.below)

    def ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the candidates (m,) and their ranks (m,) from 1; those of `below` share a mean.

        Example:
            >>> Order((4, 2), below=(0, 1)).ranks()[1].tolist()
            [1.0, 2.0, 3.5, 3.5]
        """
        first = np.arange(1, len(self.ranked) + 1, dtype=np.float64)
        rest = np.full(len(self.below), (len(self.ranked) + 1 + len(self)) / 2)
        return np.array([*self.ranked, *self.below], np.int64), np.concatenate([first, rest])


def reciprocal_rank(count: int, orders: Sequence[Order]) -> np.ndarray:
    """Mean of 1 / rank over the orders that cover a candidate, (N,).

    Example:
        >>> reciprocal_rank(3, [Order((2, 0, 1)), Order((0, 2))]).tolist()
        [0.75, 0.3333333333333333, 0.75]
    """
    return _mean(count, orders, lambda ranks: 1 / ranks)


def borda(count: int, orders: Sequence[Order]) -> np.ndarray:
    """Mean share of the others that an order puts below a candidate: (m − rank) / (m − 1), (N,).

    Borda's count, divided so that orders of different lengths m are comparable. Orders of one
    candidate are ignored.

    Example:
        >>> borda(3, [Order((2, 0, 1))]).tolist()
        [0.5, 0.0, 1.0]
    """
    return _mean(
        count, [o for o in orders if len(o) > 1], lambda ranks: 1 - (ranks - 1) / (len(ranks) - 1)
    )


def discounted_rank(count: int, orders: Sequence[Order]) -> np.ndarray:
    """Mean of 1 / log₂(1 + rank) over the orders that cover a candidate, (N,).

    The averaged discounted rank: the weight that Rank-DistiLLM's ADR-MSE (Schlatt et al. 2024,
    https://arxiv.org/abs/2405.07920) and nDCG give a rank.

    Example:
        >>> discounted_rank(3, [Order((2, 0, 1))]).round(3).tolist()
        [0.631, 0.5, 1.0]
    """
    return _mean(count, orders, lambda ranks: 1 / np.log2(1 + ranks))


def plackett_luce(count: int, orders: Sequence[Order], *, prior: float = PRIOR) -> np.ndarray:
    """Log strengths (N,), mean zero: each place goes to i with probability e^{s_i} / Σ e^{s_j}.

    The sum is over the candidates that are left; the −log likelihood of all orders is minimised.
    The last candidate of an order is not a choice, and those of `below` are never chosen. Plackett
    1975; Hunter 2004, Annals of Statistics 32(1), section 5. Orders of two make this
    `bradley_terry`.

    Args:
        prior: comparisons with an average candidate, half of them won, see `fit_strengths`. Without
            them a single order would have no finite fit.

    Example:
        >>> plackett_luce(3, [Order((2, 0, 1)), Order((2, 1, 0))]).round(2).tolist()
        [-1.47, -1.47, 2.95]
    """
    orders = [order for order in orders if len(order) > 1]
    there = np.array(sorted({i for o in orders for i in (*o.ranked, *o.below)}), dtype=np.int64)
    place = {int(candidate): column for column, candidate in enumerate(there)}
    choices = [  # the candidates that are left, the chosen one first
        [place[i] for i in (*order.ranked[at:], *order.below)]
        for order in orders
        for at in range(len(order.ranked) - (not order.below))
    ]
    n = len(there)
    absent = np.full((len(choices), n), -np.inf)  # (choices, n)
    for row, columns in enumerate(choices):
        absent[row, columns] = 0
    chosen = np.bincount([columns[0] for columns in choices], minlength=n)  # (n,)

    def loss(s: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        scores = s + absent
        p = softmax(scores, axis=1)  # (choices, n)
        total = float(logsumexp(scores, axis=1).sum() - chosen @ s)
        return total, p.sum(0) - chosen, np.diag(p.sum(0)) - p.T @ p

    strengths = np.full(count, np.nan)
    strengths[there] = fit_strengths(loss, n, prior)
    return strengths


def _mean(
    count: int, orders: Sequence[Order], worth: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    total, times = np.zeros(count), np.zeros(count)
    for order in orders:
        candidates, ranks = order.ranks()
        total[candidates] += worth(ranks)
        times[candidates] += 1
    return np.where(times > 0, total / np.maximum(times, 1), np.nan)


ORDER_AGGREGATIONS: dict[str, Callable[[int, Sequence[Order]], np.ndarray]] = {
    "reciprocal_rank": reciprocal_rank,
    "borda": borda,
    "discounted_rank": discounted_rank,
    "plackett_luce": plackett_luce,
}
