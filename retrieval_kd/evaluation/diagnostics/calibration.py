"""Calibration: how well scores can be mapped to probabilities of relevance.

The maps of `targets/calibrate.py` are fitted on other queries (cross-fitting), then measured by
log-loss, reliability bins and the expected calibration error. Unjudged documents count as not
relevant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from retrieval_kd.targets import CalibrationMethod
from retrieval_kd.targets.calibrate import fit, log_loss

if TYPE_CHECKING:
    from retrieval_kd.data.qrels import Qrels
    from retrieval_kd.data.runs import Run

BINS = 10
FOLDS = 5


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> list[dict[str, float]]:
    """Group documents by probability, lowest first: count, mean probability, share relevant.

    The first bin holds half of the documents, each following bin half of the rest, because few
    documents of a ranking are relevant. Equal probabilities share a bin, so there may be fewer.

    Args:
        probabilities: (N,)
        labels: 0 or 1, (N,)

    Example:
        >>> reliability(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0, 0, 1, 0]), bins=2)[1]
        {'count': 2, 'predicted': 0.9, 'observed': 0.5}
    """
    edges = np.unique(np.quantile(probabilities, 1 - 0.5 ** np.arange(1, bins)))
    place = np.searchsorted(edges, probabilities, side="left")  # (N,)
    rows = []
    for number in np.unique(place):
        inside = place == number
        rows.append(
            {
                "count": int(inside.sum()),
                "predicted": float(probabilities[inside].mean()),
                "observed": float(labels[inside].mean()),
            }
        )
    return rows


def expected_calibration_error(bins: list[dict[str, float]]) -> float:
    """ECE = Σ_b n_b / N · |mean probability − share relevant|. Guo et al., ICML 2017, equation 3.

    Example:
        >>> expected_calibration_error([{"count": 2, "predicted": 0.9, "observed": 0.5}])
        0.4
    """
    total = sum(b["count"] for b in bins)
    return sum(b["count"] * abs(b["predicted"] - b["observed"]) for b in bins) / total


def calibration(
    run: Run,
    qrels: Qrels,
    method: CalibrationMethod = "platt",
    *,
    depth: int = 100,
    folds: int = FOLDS,
) -> dict[str, Any] | None:
    """Measure how well one global map from score to probability fits a system.

    Each query's documents get their probabilities from a map fitted on the other folds' queries.
    `log_loss` is that of these probabilities, of the scores as log-odds (`raw`), and of the other
    folds' base rate; the record `raw` has the bins and the ECE of the scores as log-odds. `brier`
    is the mean of (p − label)², `base_rate` the share of relevant documents, `skill` is
    1 − brier / (base_rate (1 − base_rate)): 0 for a system that always predicts the base rate,
    whose ECE is 0 too. `spread` has quantiles over queries of the standard deviation of a query's
    scores: if it varies much, no single temperature suits all queries.

    Returns:
        None if fewer than two queries have results and a relevant document.

    Example:
        >>> from retrieval_kd.data.runs import Run
        >>> run = Run("s", {f"q{i}": {"a": 1.0, "b": 0.0} for i in range(4)})
        >>> found = calibration(run, {f"q{i}": {"a": 1} for i in range(4)}, "isotonic")
        >>> found["ece"], found["base_rate"]
        (0.0, 0.5)
    """
    queries = [q for q in qrels if run.results.get(q) and any(g > 0 for g in qrels[q].values())]
    if len(queries) < 2:
        return None
    scores, labels, owner = _table(run, qrels, queries, depth)
    fold = np.arange(len(queries))[owner] % min(folds, len(queries))  # (N,)
    probabilities, log_odds, rates = np.empty((3, len(scores)))
    for number in np.unique(fold):
        held = fold == number
        fitted = fit(scores[~held], labels[~held], method)
        probabilities[held] = fitted.probabilities(scores[held])
        log_odds[held] = fitted.log_odds(scores[held])
        rates[held] = fit(np.zeros((~held).sum()), labels[~held]).log_odds(scores[held])
    bins, raw = reliability(probabilities, labels), reliability(expit(scores), labels)
    base, brier = float(labels.mean()), float(np.mean((probabilities - labels) ** 2))
    spreads = np.array([scores[owner == i].std() for i in range(len(queries))])
    low, middle, high = np.quantile(spreads, [0.1, 0.5, 0.9])
    return {
        "method": method,
        "queries": len(queries),
        "documents": len(scores),
        "base_rate": base,
        "ece": expected_calibration_error(bins),
        "brier": brier,
        "skill": 1 - brier / (base * (1 - base)) if 0 < base < 1 else None,
        "bins": bins,
        "log_loss": {
            "calibrated": log_loss(log_odds, labels),
            "raw": log_loss(scores, labels),
            "base_rate": log_loss(rates, labels),
        },
        "raw": {"ece": expected_calibration_error(raw), "bins": raw},
        "spread": {"p10": float(low), "median": float(middle), "p90": float(high)},
    }


def _table(
    run: Run, qrels: Mapping[str, Mapping[str, int]], queries: list[str], depth: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List score, label and number of the query for every ranked document.  (N,), (N,), (N,)"""
    scores, labels, owner = [], [], []
    for number, query in enumerate(queries):
        for document, score in list(run.results[query].items())[:depth]:
            scores.append(score)
            labels.append(qrels[query].get(document, 0) > 0)
            owner.append(number)
    return np.array(scores), np.array(labels, dtype=np.int64), np.array(owner)
