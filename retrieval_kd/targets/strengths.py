"""Fits Luce's choice model, which Bradley–Terry and Plackett–Luce have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, log_expit

from retrieval_kd.errors import InputError

PRIOR = 0.1  # comparisons with an average candidate
TOLERANCE, MOST_STEPS = 1e-8, 200

# Log strengths (n,) → loss, gradient (n,), Hessian (n, n).
Loss = Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]]


def fit_strengths(loss: Loss, count: int, prior: float) -> np.ndarray:
    """Return the log strengths (n,) that minimise `loss` + prior, mean zero, by Newton's method.

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
