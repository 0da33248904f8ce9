"""Ways to fuse several teachers, besides a weighted sum of z-scores (`normalise.fuse`).

All work on one query's scores (T, N): T teachers, N candidates that all of them scored. A teacher
whose scores of a query are all equal does not change the order. Weights that are learnt per query
are in `chooser.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau, rankdata

from retrieval_kd.targets.normalise import z_scores

RANK_CONSTANT = 60  # Cormack, Clarke and Büttcher, SIGIR 2009


def rank_fusion(
    scores: np.ndarray, weights: Sequence[float] | None = None, *, k: float = RANK_CONSTANT
) -> np.ndarray:
    """Return Σ_t w_t / (k + rank of the candidate by teacher t), (N,), independent of scales.

    Reciprocal rank fusion (Cormack et al. 2009), as ranx and `retrieval/retrieve.py` compute it
    without ties. Equal scores share their mean rank here, because targets must not depend on the
    names of documents.

    Args:
        scores: (T, N).
        weights: (T,); by default all 1.

    Example:
        >>> rank_fusion(np.array([[3.0, 2.0], [5.0, 5.0]])).round(4).tolist()
        [0.0327, 0.0324]
    """
    ranks = rankdata(-scores, axis=1)  # (T, N)
    return _weights(weights, scores) @ (1 / (k + ranks))


def agreement(scores: np.ndarray) -> np.ndarray:
    """Return the mean Kendall τ-b of each teacher with the others, (T,), from −1 to 1.

    With a teacher whose scores are all equal it is 0.

    Example:
        >>> agreement(np.array([[3.0, 2.0, 1.0], [9.0, 8.0, 7.0], [1.0, 2.0, 3.0]])).tolist()
        [0.0, 0.0, -1.0]
    """
    count = len(scores)
    found = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            if np.ptp(scores[i]) > 0 and np.ptp(scores[j]) > 0:
                found[i, j] = found[j, i] = kendalltau(scores[i], scores[j]).statistic
    return np.round(found.sum(1) / max(1, count - 1), 12)


def agreement_weighted(scores: np.ndarray, weights: Sequence[float] | None = None) -> np.ndarray:
    """Return Σ_t w_t a_t z_t / Σ_t w_t a_t, (N,): teachers that agree with the others count more.

    z_t are teacher t's z-scores and a_t = max(0, `agreement`) of its scores of this query. If no
    teacher agrees with the others, all a_t are 1. Two teachers always have equal a_t.

    Args:
        scores: (T, N).
        weights: (T,); by default all 1.

    Example:
        >>> odd_one_out = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [2.0, 3.0, 1.0]])
        >>> agreement_weighted(odd_one_out).round(2).tolist()
        [0.98, 0.24, -1.22]
    """
    agreed = np.maximum(agreement(scores), 0.0)
    share = _weights(weights, scores) * (agreed if agreed.any() else np.ones(len(scores)))
    if not share.any():  # the teachers that agree have no weight
        share = _weights(weights, scores)
    return share / share.sum() @ np.array([z_scores(row) for row in scores])


def _weights(weights: Sequence[float] | None, scores: np.ndarray) -> np.ndarray:
    return np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
