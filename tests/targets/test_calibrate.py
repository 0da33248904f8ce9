"""Scores as log-odds, on scores whose true probabilities are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import log_loss as reference_log_loss

from retrieval_kd.errors import InputError
from retrieval_kd.targets.calibrate import COLDEST, calibrated, fit, fit_on, log_loss
from retrieval_kd.targets.combine import Combination

METHODS = ("platt", "isotonic", "temperature")
EVERY = pytest.mark.parametrize("method", METHODS)
labelled = st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=1, max_size=40)


def simulated(count: int, slope: float, intercept: float, seed: int):
    """Scores whose log-odds of relevance are slope · score + intercept."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=count) * 4
    return scores, (rng.random(count) < expit(slope * scores + intercept)).astype(int)


@pytest.mark.parametrize("method, intercept", [("platt", -1.5), ("temperature", 0.0)])
def test_the_line_that_made_the_labels_is_found(method, intercept):
    found = fit(*simulated(40_000, 0.25, intercept, seed=0), method)
    # 40,000 labels: the slope's standard error is about .004, the intercept's .013
    assert found.slope == pytest.approx(0.25, abs=0.015)
    assert found.intercept == pytest.approx(intercept, abs=0.05)


def test_isotonic_finds_probabilities_that_are_no_sigmoid():
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=20_000)
    labels = (rng.random(20_000) < np.where(scores < 0.5, 0.1, 0.4)).astype(int)
    found = fit(scores, labels, "isotonic").probabilities(np.array([0.25, 0.75]))
    assert found == pytest.approx([0.1, 0.4], abs=0.03)


@EVERY
def test_calibration_lowers_the_log_loss_of_judgments_it_has_not_seen(method):
    """An overconfident teacher: its logits are four times too large."""
    train, unseen = simulated(2_000, 0.25, 0.0, seed=1), simulated(2_000, 0.25, 0.0, seed=2)
    found = fit(*train, method)
    assert log_loss(found.log_odds(unseen[0]), unseen[1]) < log_loss(*unseen)


@EVERY
@given(labelled)
def test_log_odds_are_finite_and_those_of_the_probabilities(method, pairs):
    scores, labels = np.array([s for s, _ in pairs]), np.array([int(y) for _, y in pairs])
    found = fit(scores, labels, method)
    odds, p = found.log_odds(scores), found.probabilities(scores)
    assert np.isfinite(odds).all() and (p >= 0).all() and (p <= 1).all()
    least = 1 / (len(pairs) + 2)
    expected = np.clip(p, least, 1 - least) if found.knots else p
    np.testing.assert_allclose(expit(odds), expected, atol=1e-9)


@given(labelled)
@example([(11.0, True), (-0.0625, False)])  # the colder the better
def test_no_temperature_is_better_than_the_one_found(pairs):
    scores, labels = np.array([s for s, _ in pairs]), np.array([int(y) for _, y in pairs])
    found = fit(scores, labels, "temperature")
    if found.knots:
        return  # all alike
    ours = log_loss(found.log_odds(scores), labels)
    # Where a colder one would be better without end, the coldest that is tried has to do.
    coldest = 1 / (COLDEST * np.abs(scores).max())
    colder = [] if found.slope > 0.99 * coldest else [2 * found.slope]
    for other in (min(1.0, coldest), 0.5 * found.slope, *colder):
        # At the hottest temperature tried, log-odds are .001 at most: so near is the loss.
        assert ours <= log_loss(other * scores, labels) + 1e-3


@pytest.mark.parametrize("method", ["isotonic", "temperature"])
@given(labelled)
def test_the_order_of_scores_is_kept(method, pairs):
    scores, labels = np.array([s for s, _ in pairs]), np.array([int(y) for _, y in pairs])
    found = fit(scores, labels, method).log_odds(np.sort(scores))
    assert (np.diff(found) >= 0).all()


@EVERY
def test_equal_scores_or_equal_labels_give_the_share(method):
    assert fit(np.ones(4), np.array([0, 0, 0, 1]), method).probabilities(
        np.array([-5.0, 5.0])
    ).tolist() == [0.25, 0.25]
    none = fit(np.arange(4.0), np.zeros(4, int), method)
    assert none.probabilities(np.array([9.0])).tolist() == [0.0]
    assert none.log_odds(np.array([9.0])) == pytest.approx(logit(1 / 6))  # 4 labels, none relevant


@EVERY
def test_a_query_of_equal_scores_stays_equal(method):
    found = fit(*simulated(200, 0.5, -1.0, seed=3), method)
    assert len(set(calibrated({"q": {"a": 1.0, "b": 1.0}}, found)["q"].values())) == 1


@EVERY
def test_a_map_survives_json(method):
    found = fit(*simulated(200, 0.5, -1.0, seed=3), method)
    whole = Combination("calibrated", {"a": found})
    assert Combination.from_dict(json.loads(json.dumps(whole.as_dict()))) == whole


def test_log_loss_is_scikit_learns():
    odds, labels = simulated(50, 1.0, 0.0, seed=4)
    assert log_loss(odds, labels) == pytest.approx(reference_log_loss(labels, expit(odds)))


def test_only_judged_queries_count_and_unjudged_documents_are_not_relevant():
    scores = {"q": {"a": 1.0, "b": 1.0, "c": 1.0}, "unjudged": {"d": 9.0}}
    assert fit_on(scores, {"q": {"a": 1}}, "platt").shares == pytest.approx([1 / 3])
    with pytest.raises(InputError, match="no scored query has judgments"):
        fit_on(scores, {"other": {"a": 1}}, "platt")


def test_platt_stands_separable_labels():
    found = fit(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1]))
    low, high = found.probabilities(np.array([0.0, 3.0]))
    assert low < 0.1 and high > 0.9


def test_calibration_without_data_is_an_error():
    with pytest.raises(InputError, match="a label for each score"):
        fit(np.array([]), np.array([]))
