"""Calibrates a teacher: maps its scores to log-odds of relevance, fitted on judged queries.

The map is the same for all queries. It keeps the order of scores, except that `isotonic` makes ties
and `platt` reverses a teacher that is worse than chance. How well it fits other judgments is
measured in `evaluation/diagnostics/calibration.py`. Documents without a judgment count as not
relevant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from retrieval_kd.data.scores import Scores, ScoreTable
from retrieval_kd.errors import InputError
from retrieval_kd.targets import CalibrationMethod
from retrieval_kd.targets.normalise import all_alike

COLDEST, HOTTEST = 1e-3, 1e3  # temperatures tried, as multiples of the scores' size


@dataclass(frozen=True)
class Calibration:
    """A fitted map from score to P(relevant), in plain numbers that can be saved as JSON.

    It is `slope · score + intercept` in log-odds or, with `knots`, the `shares` at them with
    straight lines between. `labels` is the number of judgments it was fitted on.

    Example:
        >>> halved = Calibration("temperature", labels=100, slope=0.5)
        >>> halved.log_odds(np.array([2.0, -4.0])).tolist()
        [1.0, -2.0]
    """

    method: str
    labels: int
    slope: float = 0.0
    intercept: float = 0.0
    knots: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return P(relevant) (N,) of scores (N,)."""
        if self.knots:
            return np.interp(scores, self.knots, self.shares)
        return expit(self.slope * np.asarray(scores, np.float64) + self.intercept)

    def log_odds(self, scores: np.ndarray) -> np.ndarray:
        """Return log p / (1 − p) (N,) of scores (N,); always finite.

        Shares of 0 and 1 become 1 / (n + 2) and 1 − 1 / (n + 2) for n labels, by Laplace's rule of
        succession.
        """
        if self.knots:
            least = 1 / (self.labels + 2)
            return logit(np.clip(self.probabilities(scores), least, 1 - least))
        return self.slope * np.asarray(scores, np.float64) + self.intercept


def fit(scores: np.ndarray, labels: np.ndarray, method: CalibrationMethod = "platt") -> Calibration:
    """Fit P(relevant | score) on scores (N,) and labels (N,) of 0 and 1.

    `platt`: σ(a s + b), a and b by maximum likelihood with a weak L2 penalty on the standardised
    score, so that separable data have a solution (Platt 1999). `temperature`: σ(s / T), T by
    maximum likelihood (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2). It
    suits logits that are log-odds already, because it cannot shift them. `isotonic`: the best
    non-decreasing step function (Zadrozny and Elkan 2002).

    If all scores or all labels are equal, every score gets the share of relevant labels.

    Example:
        >>> calibrate = fit(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 1, 0, 1]), "isotonic")
        >>> calibrate.probabilities(np.array([-9.0, 1.5, 9.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    if len(scores) != len(labels) or not len(scores):
        raise InputError("calibration needs a label for each score, and at least one")
    scores, count = np.asarray(scores, np.float64), len(scores)
    if labels.min() == labels.max() or all_alike(scores):
        share = float(labels.mean())
        return Calibration(method, count, knots=(0.0,), shares=(share,))
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, labels)
        knots, shares = steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist()
        return Calibration(method, count, knots=tuple(knots), shares=tuple(shares))
    if method == "temperature":
        return Calibration(method, count, slope=1 / _temperature(scores, labels))
    from sklearn.linear_model import LogisticRegression

    mean, spread = float(scores.mean()), float(scores.std())
    model = LogisticRegression(C=1e3).fit(((scores - mean) / spread)[:, None], labels)
    slope = float(model.coef_[0, 0]) / spread
    return Calibration(
        method, count, slope=slope, intercept=float(model.intercept_[0]) - slope * mean
    )


def fit_on(
    scores: Scores, qrels: Mapping[str, Mapping[str, int]], method: CalibrationMethod
) -> Calibration:
    """Fit on all scores of judged queries, see `fit`."""
    pairs = [
        (score, judged.get(document, 0) > 0)
        for query, judged in qrels.items()
        for document, score in scores.get(query, {}).items()
    ]
    if not pairs:
        raise InputError(
            "no scored query has judgments to calibrate on",
            remedy="score the candidates of a judged split",
        )
    values, labels = zip(*pairs, strict=True)
    return fit(np.array(values), np.array(labels, dtype=np.int64), method)


def calibrated(scores: Scores, calibration: Calibration) -> ScoreTable:
    """Turn all scores into log-odds of relevance.

    Example:
        >>> dict(calibrated({"q": {"a": 3.0}}, Calibration("temperature", labels=9, slope=2.0)))
        {'q': {'a': 6.0}}
    """
    table = ScoreTable.of(scores)
    return table.with_scores(calibration.log_odds(table.scores.astype(np.float64)))


def log_loss(log_odds: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of −log P(label) for log-odds (N,) and labels (N,) of 0 and 1.

    Example:
        >>> round(log_loss(np.array([0.0, 0.0]), np.array([0, 1])), 4)  # −log ½
        0.6931
    """
    return float(np.logaddexp(0, np.where(labels > 0, -log_odds, log_odds)).mean())


def _temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar

    size = float(np.abs(scores).max())
    best = minimize_scalar(
        lambda log_t: log_loss(scores / np.exp(log_t), labels),
        bounds=(np.log(COLDEST * size), np.log(HOTTEST * size)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(best.x))
