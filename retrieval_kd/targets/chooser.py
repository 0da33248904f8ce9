"""Chooses teachers for each query, fitted on judged queries by policy gradient."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from retrieval_kd.errors import InputError
from retrieval_kd.targets.normalise import agreement, z_scores

FEATURES = ("agreement", "lead", "skew")
MOST_TEACHERS = 6  # 63 sets of them are tried per query
PENALTY = 0.01  # on squared coefficients, in units of the reward


@dataclass(frozen=True)
class Chooser:
    """The probability that each of T teachers is chosen, by query.

    P(choose t) = σ(b_t + w_t · x_t), where x_t are the standardised `FEATURES` of teacher t's
    scores. Teachers are chosen independently, but at least one. The z-scores of those chosen
    are averaged, and the reward is the quality of that ranking by the judgments. The mean expected
    reward less `PENALTY` · (|w|² + |b|²) is maximised by its exact policy gradient: with so few
    teachers all sets of them can be tried, and nothing is sampled.

    After the reinforced selection of Yuan et al. 2021 (https://arxiv.org/abs/2012.06048), where
    the reward is the student's loss while it trains (here the objective `reinforced_teachers`).
    Here it is the fused ranking's nDCG@10 on judged queries, before any student is trained.
    """

    coefficients: tuple[tuple[float, ...], ...]  # (T, 1 + features), the b_t first
    means: tuple[tuple[float, ...], ...]  # (T, features)
    spreads: tuple[tuple[float, ...], ...]  # (T, features)

    def weights(self, scores: np.ndarray) -> np.ndarray:
        """Return the teachers' weights (T,) for a query, from its scores (T, N); their sum is 1.

        Example:
            >>> Chooser(((0.0,) * 4,) * 2, ((0.0,) * 3,) * 2, ((1.0,) * 3,) * 2).weights(np.eye(2))
            array([0.5, 0.5])
        """
        inputs = self._inputs(features(scores))  # (T, 1 + features)
        believed = expit((inputs * np.array(self.coefficients)).sum(1))
        return believed / believed.sum()

    def fuse(self, scores: np.ndarray, weights: Sequence[float] | None = None) -> np.ndarray:
        """Return Σ_t p_t z_t (N,), p the query's weights times the given ones, scaled to sum 1."""
        share = self.weights(scores) * (1.0 if weights is None else np.asarray(weights))
        return share / share.sum() @ np.array([z_scores(row) for row in scores])

    def of(self, teachers: Sequence[int]) -> Chooser:
        """Return the chooser for some of the teachers, by number."""
        return Chooser(
            *(
                tuple(rows[t] for t in teachers)
                for rows in (self.coefficients, self.means, self.spreads)
            )
        )

    def _inputs(self, values: np.ndarray) -> np.ndarray:
        standard = (values - np.array(self.means)) / np.array(self.spreads)
        return np.concatenate([np.ones((*standard.shape[:-1], 1)), standard], axis=-1)


def features(scores: np.ndarray) -> np.ndarray:
    """Return features (T, F) of each teacher's scores (T, N) of a query; zeros if all are equal.

    `agreement` with the other teachers; `lead`, the best z-score less the second best: how sure the
    teacher is of its first; `skew` of the z-scores: whether few candidates stand out.

    Example:
        >>> features(np.array([[9.0, 1.0, 1.0], [2.0, 2.0, 2.0]])).round(2).tolist()
        [[0.0, 2.12, 0.71], [0.0, 0.0, 0.0]]
    """
    z = np.array([z_scores(row) for row in scores])  # (T, N)
    best = -np.sort(-z, axis=1)
    lead = best[:, 0] - best[:, 1] if z.shape[1] > 1 else np.zeros(len(z))
    return np.column_stack([agreement(scores), lead, (z**3).mean(1)])


def subsets(teachers: int) -> np.ndarray:
    """Return all sets of teachers except the empty one, as 0 and 1: (2^T − 1, T).

    Example:
        >>> subsets(2).tolist()
        [[0, 1], [1, 0], [1, 1]]
    """
    if teachers > MOST_TEACHERS:
        raise InputError(
            f"weights per query can be fitted for {MOST_TEACHERS} teachers, not {teachers}",
            remedy="leave some out, or choose another fusion",
        )
    return np.array(list(itertools.product((0, 1), repeat=teachers))[1:])


def fit_chooser(inputs: np.ndarray, rewards: np.ndarray) -> Chooser:
    """Fit the chooser with the highest reward on judged queries.

    Args:
        inputs: `features` of each query, (Q, T, F).
        rewards: reward of each set of teachers (rows of `subsets`) on each query, (Q, 2^T − 1).
    """
    sets = subsets(inputs.shape[1])  # (S, T)
    means, spreads = inputs.mean(0), inputs.std(0)
    spreads = np.where(spreads > 1e-9, spreads, 1.0)
    zero = tuple(map(tuple, np.zeros((inputs.shape[1], 1 + inputs.shape[2])).tolist()))
    begin = Chooser(zero, _rows(means), _rows(spreads))
    standard = begin._inputs(inputs)  # (Q, T, 1 + features)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = flat.reshape(standard.shape[1:])
        expected, slope = expected_reward((standard * coefficients).sum(-1), sets, rewards)
        gradient = (slope[:, :, None] * standard).mean(0) - 2 * PENALTY * coefficients
        return -float(expected.mean() - PENALTY * (flat**2).sum()), -gradient.ravel()

    best = minimize(loss, np.zeros(standard[0].size), jac=True, method="L-BFGS-B").x
    return Chooser(_rows(best.reshape(standard.shape[1:])), begin.means, begin.spreads)


def expected_reward(
    logits: np.ndarray, sets: np.ndarray, rewards: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return E_π[R] of each query (Q,), and its derivatives by the logits (Q, T).

    π(a) ∝ Π_t σ(l_t)^{a_t} (1 − σ(l_t))^{1 − a_t} over the rows a of `sets` (S, T). The policy
    gradient, summed over all a: ∂E/∂l_t = Σ_a π(a) (R(a) − E[R]) a_t.

    Args:
        logits: (Q, T).
        rewards: (Q, S).

    Example:
        >>> expected, slope = expected_reward(
        ...     np.zeros((1, 2)), subsets(2), np.array([[0.0, 1.0, 0.5]]))
        >>> expected.tolist(), slope.round(3).tolist()
        ([0.5], [[0.167, -0.167]])
    """
    log_p = log_expit(logits) @ sets.T + log_expit(-logits) @ (1 - sets).T  # (Q, S)
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    expected = (p * rewards).sum(1)  # (Q,)
    return expected, (p * (rewards - expected[:, None])) @ sets


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))
