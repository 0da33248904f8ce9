from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.runs import Run
from retrieval_kd.evaluation.diagnostics.calibration import (
    calibration,
    expected_calibration_error,
    reliability,
)


def simulated(queries: int, slope: float, seed: int = 0) -> tuple[Run, dict[str, dict[str, int]]]:
    """Runs whose documents are relevant with probability 1 / (1 + exp(−slope (s − 1)))."""
    rng = np.random.default_rng(seed)
    results, qrels = {}, {}
    for q in range(queries):
        scores = rng.normal(size=20)
        relevant = rng.random(20) < 1 / (1 + np.exp(-slope * (scores - 1)))
        results[f"q{q}"] = {f"d{i}": float(s) for i, s in enumerate(scores)}
        qrels[f"q{q}"] = {f"d{i}": int(r) for i, r in enumerate(relevant)}
    return Run("s", results), qrels


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.9, 1.0]), st.booleans()), min_size=1),
    st.integers(1, 12),
)
def test_bins_hold_every_document_once_and_equal_probabilities_together(
    pairs: list[tuple[float, bool]], count: int
) -> None:
    probabilities, labels = (np.array(column) for column in zip(*pairs, strict=True))
    found = reliability(probabilities, labels, count)
    assert sum(b["count"] for b in found) == len(pairs) and len(found) <= count
    predicted = [b["predicted"] for b in found]
    assert predicted == sorted(predicted)
    total = sum(b["count"] * b["observed"] for b in found)
    assert total == pytest.approx(labels.sum())
    assert 0 <= expected_calibration_error(found) <= 1


def test_ece_is_the_formula_and_zero_where_shares_are_as_predicted() -> None:
    even = [
        {"count": 6, "predicted": 0.5, "observed": 0.5},
        {"count": 2, "predicted": 1, "observed": 1},
    ]
    assert expected_calibration_error(even) == 0
    even[1]["observed"] = 0.5
    assert expected_calibration_error(even) == pytest.approx(2 / 8 * 0.5)


def test_a_system_whose_scores_mean_the_same_everywhere_is_calibrated_by_other_queries() -> None:
    run, qrels = simulated(300, slope=2.0)
    good = calibration(run, qrels)
    assert good is not None and good["ece"] < 0.02 and good["skill"] > 0.2
    # the same rankings, each on a scale of its own: no one map fits them all
    rng = np.random.default_rng(1)
    moved = Run("m", {
        query: {d: s + shift for d, s in found.items()}
        for (query, found), shift in zip(run.results.items(), rng.normal(0, 5, 300), strict=True)
    })  # fmt: skip
    bad = calibration(moved, qrels)
    assert bad is not None and bad["skill"] < good["skill"] / 2
    assert bad["spread"] == pytest.approx(good["spread"])


def test_log_loss_is_measured_on_other_queries_than_the_map_was_fitted_on() -> None:
    """Scores whose log-odds are 2 (s − 1), so that as they stand they are no log-odds."""
    found = calibration(*simulated(300, slope=2.0))
    assert found is not None
    loss = found["log_loss"]
    assert loss["calibrated"] < loss["base_rate"] < loss["raw"]
    assert found["ece"] < found["raw"]["ece"]
    assert sum(b["count"] for b in found["raw"]["bins"]) == found["documents"]


def test_scores_without_meaning_have_no_skill() -> None:
    run, qrels = simulated(300, slope=0.0)
    found = calibration(run, qrels)
    assert found is not None and found["skill"] == pytest.approx(0, abs=0.01)


def test_a_query_is_not_judged_by_a_map_fitted_on_itself() -> None:
    # alone, each query's labels are perfectly ordered by score; the other's say the opposite
    run = Run("s", {"q1": {"a": 1.0, "b": 0.0}, "q2": {"a": 1.0, "b": 0.0}})
    found = calibration(run, {"q1": {"a": 1}, "q2": {"b": 1}}, "isotonic")
    assert found is not None and found["brier"] >= 0.5


def test_one_query_cannot_be_calibrated_by_others() -> None:
    run = Run("s", {"q1": {"a": 1.0, "b": 0.0}, "q2": {"a": 1.0}})
    assert calibration(run, {"q1": {"a": 1}, "q2": {"a": 0}}) is None
