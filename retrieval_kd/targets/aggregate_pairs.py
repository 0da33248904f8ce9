"""Aggregates answers to "which of these two is better?" into one score per candidate of a query.

All functions take `preferences (N, N)`: P(i is better than j), NaN where the two were not compared,
with P(j better than i) = 1 − P(i better than j). A candidate without an answered pair gets NaN and
not a middle score. Candidates that all tie get equal scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, log_expit

from retrieval_kd.errors import InputError

PRIOR = 0.1  # comparisons with an average candidate
TOLERANCE, MOST_STEPS = 1e-8, 200

# Log strengths (n,) → loss, gradient (n,), Hessian (n, n).
Loss = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]


def preferences_of(count: int, shown: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """P(i better than j) (N, N) from answers about pairs: the mean of both orders.

    P_ij = ½ σ(log-odds of i, shown first) + ½ (1 − σ(log-odds of j, shown first)), as duoT5 sums
    its two (Pradeep, Nogueira and Lin 2021, https://arxiv.org/abs/2101.05667, section 3.2). The
    model's preference for the first position cancels out. Several answers to one request are
    averaged.

    Args:
        count: N.
        shown: (M, 2) candidates in the order they were shown.
        log_odds: (M,) log p(first is better) − log p(second is better); NaN: no answer.

    Example:
        >>> both = preferences_of(2, np.array([[0, 1], [1, 0]]), np.array([2.0, 2.0]))
        >>> both.tolist()  # a model that prefers whatever comes first
        [[nan, 0.5], [0.5, nan]]
    """
    shown, log_odds = np.asarray(shown).reshape(-1, 2), np.asarray(log_odds, dtype=np.float64)
    answered = ~np.isnan(log_odds) & (shown[:, 0] != shown[:, 1])
    first, second = shown[answered].T  # (m,), (m,)
    total, times = np.zeros((count, count)), np.zeros((count, count))
    np.add.at(total, (first, second), expit(log_odds[answered]))
    np.add.at(times, (first, second), 1)
    with np.errstate(invalid="ignore"):
        seen = total / times  # (N, N), NaN where i was never shown before j
    return (seen + (1 - seen.T)) / 2


def win_rate(preferences: np.ndarray) -> np.ndarray:
    """Mean of P(i better than j) over the j that i was compared with, (N,); 0.5 if all tie.

    If all pairs were compared, this ranks as duoT5's sum does. If only some were (adjacent ones,
    those of a sort), it depends on a candidate's opponents: use `bradley_terry` then.

    Example:
        >>> win_rate(np.array([[np.nan, 0.9, 0.7], [0.1, np.nan, 0.6], [0.3, 0.4, np.nan]]))
        array([0.8 , 0.35, 0.35])
    """
    compared = _compared(preferences)
    return _over_opponents(np.where(compared, preferences, 0.0), compared)


def copeland(preferences: np.ndarray) -> np.ndarray:
    """(duels won − duels lost) / duels fought, (N,), from −1 to 1; NaN without a duel.

    A duel is won with P > 0.5. Copeland 1951, as in "Handbook of Computational Social Choice"
    (2016), section 2.3, which does not divide by the number of duels.

    Example:
        >>> copeland(np.array([[np.nan, 0.9, 0.7], [0.1, np.nan, 0.6], [0.3, 0.4, np.nan]]))
        array([ 1.,  0., -1.])
    """
    compared = _compared(preferences)
    return _over_opponents(np.sign(np.where(compared, preferences - 0.5, 0.0)), compared)


def bradley_terry(preferences: np.ndarray, *, prior: float = PRIOR) -> np.ndarray:
    """Log strengths (N,), mean zero, under P(i better than j) = σ(s_i − s_j).

    Minimises −Σ_{i,j} P_ij log σ(s_i − s_j). Bradley and Terry 1952; Hunter 2004, Annals of
    Statistics 32(1), section 2, whose minorisation-maximisation has the same fixed point but needs
    thousands of steps if all answers are certain.

    Args:
        prior: comparisons with an average candidate, half of them won, see `fit_strengths`.

    Example:
        >>> strengths = bradley_terry(np.array([[np.nan, 0.8], [0.2, np.nan]]), prior=1e-6)
        >>> round(float(np.exp(strengths[0] - strengths[1])), 3)  # 0.8 / 0.2
        4.0
    """
    compared = _compared(preferences)
    there = compared.any(1)  # (N,)
    wins = np.where(compared, preferences, 0.0)[np.ix_(there, there)]  # (n, n)
    games = wins + wins.T

    def loss(s: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        lead = s[:, None] - s  # (n, n)
        won = expit(lead)
        curvature = games * won * (1 - won)
        gradient = (games * won).sum(1) - wins.sum(1)
        return (
            -float((wins * log_expit(lead)).sum()),
            gradient,
            np.diag(curvature.sum(1)) - curvature,
        )

    strengths = np.full(len(preferences), np.nan)
    strengths[there] = fit_strengths(loss, len(wins), prior)
    return strengths


def fit_strengths(loss: Loss, count: int, prior: float) -> np.ndarray:
    """Return the log strengths (n,) that minimise `loss` + prior, mean zero, by Newton's method.

    Luce's choice model, which Bradley–Terry and Plackett–Luce have in common.

    Prior: each candidate also meets an average one, of strength 0, in `prior` comparisons, of which
    it wins half: − prior / 2 · Σ_i (log σ(s_i) + log σ(−s_i)). The sum is strictly convex, so that
    the minimum exists even if a candidate always won or groups never met, and halved steps always
    reach it.
    """
    if not prior > 0:
        raise InputError(f"prior is {prior:g}", remedy="give a number above 0, such as 0.1")

    def total(s: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, hessian = loss(s)
        won = expit(s)
        value -= prior / 2 * float((log_expit(s) + log_expit(-s)).sum())
        gradient = gradient + prior * (won - 0.5)
        return value, gradient, hessian + np.diag(prior * won * (1 - won))

    s = np.zeros(count)
    if not count:
        return s
    value, gradient, hessian = total(s)
    for _ in range(MOST_STEPS):
        step = np.linalg.solve(hessian, gradient)  # (n,)
        promised, size = float(gradient @ step), 1.0
        if promised < TOLERANCE**2 or np.abs(step).max() < TOLERANCE:
            break
        while True:
            new = total(s - size * step)
            if new[0] <= value - 0.25 * size * promised or size < 1e-10:
                break
            size /= 2
        s, (value, gradient, hessian) = s - size * step, new
    return s - s.mean()


def _compared(preferences: np.ndarray) -> np.ndarray:
    """Which pairs were compared, (N, N); the diagonal is false."""
    return ~np.isnan(preferences) & ~np.eye(len(preferences), dtype=bool)


def _over_opponents(values: np.ndarray, compared: np.ndarray) -> np.ndarray:
    met = compared.sum(1)  # (N,)
    return np.where(met > 0, values.sum(1) / np.maximum(met, 1), np.nan)


PAIR_AGGREGATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "win_rate": win_rate,
    "copeland": copeland,
    "bradley_terry": bradley_terry,
}
