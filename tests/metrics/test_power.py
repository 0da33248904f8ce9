"""Power agrees with statsmodels and with simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from retrieval_kd.errors import InputError
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.power import detectable_difference, queries_needed, t_test_power
from retrieval_kd.metrics.significance import compare, t_test

theirs = TTestPower()


@given(st.floats(0.02, 1.5), st.integers(3, 2000), st.sampled_from([0.01, 0.05]))
@settings(max_examples=100, deadline=None)
def test_the_power_is_statsmodels(effect, queries, alpha):
    ours, expected = t_test_power(effect, queries, alpha), theirs.power(effect, queries, alpha)
    if math.isnan(expected):  # statsmodels passes on scipy's NaN for powers near 1
        assert ours > 0.999
    else:
        assert ours == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("effect", [0.05, 0.1, 0.2, 0.5, 0.8, 1.2])
def test_queries_needed_are_statsmodels_rounded_up(effect):
    expected = theirs.solve_power(effect, power=0.8, alpha=0.05)
    assert queries_needed(effect) == queries_needed(-effect) == math.ceil(expected)


@pytest.mark.parametrize("queries", [3, 10, 50, 300, 7000])
def test_the_detectable_difference_is_statsmodels(queries):
    expected = 0.3 * theirs.solve_power(None, nobs=queries, power=0.8, alpha=0.05)
    assert detectable_difference(0.3, queries) == pytest.approx(expected, rel=1e-4)


def test_a_difference_of_that_size_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    true = detectable_difference(0.25, 80)
    found = [t_test(rng.normal(true, 0.25, 80)) < 0.05 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.035)


def test_a_comparison_says_what_it_could_have_seen():
    rng = np.random.default_rng(1)
    base = rng.random(100)
    new = base + rng.normal(0.01, 0.2, 100)
    of = lambda values: {"map": {str(i): float(v) for i, v in enumerate(values)}}  # noqa: E731
    [c] = compare(Evaluation(["map"], {"base": of(base), "new": of(new)}), baseline="base")
    assert c.queries_needed == queries_needed(c.effect)
    assert c.detectable == pytest.approx(detectable_difference(c.difference / c.effect, 100))
    # not significant, so more queries than there are would be needed
    assert c.p > 0.05 and c.queries_needed > 100 and abs(c.difference) < c.detectable
    assert f"this one needs {c.queries_needed:,}" in c.power_sentence()


def test_what_cannot_be_answered():
    assert queries_needed(0.0) is None
    assert detectable_difference(0.2, 1) is None
    assert detectable_difference(0.0, 10) is None
    assert t_test_power(5.0, 1) == 0.0
    assert queries_needed(1e6) == 2 and t_test_power(1e8, 300) == 1.0
    with pytest.raises(InputError, match="choose a power"):
        queries_needed(0.2, power=0.01)


@pytest.mark.parametrize(
    ("difference", "said"),
    [(0.0, "Both are equal on all 20 queries"), (0.1, "All 20 queries differ by the same +0.1000")],
)
def test_equal_differences_have_no_detectable_size(difference, said):
    """A standard deviation of 0 is no promise that a difference of 0 would be seen."""
    base = [i / 40 for i in range(20)]
    of = lambda values: {"map": {str(i): v for i, v in enumerate(values)}}  # noqa: E731
    systems = {"base": of(base), "new": of([v + difference for v in base])}
    [c] = compare(Evaluation(["map"], systems), baseline="base")
    assert c.detectable is None and c.queries_needed is None and c.effect == 0.0
    assert c.power_sentence().startswith(said) and "0.0000" not in c.power_sentence()
    [one] = compare(Evaluation(["map"], {s: {"map": {"0": 0.5}} for s in "ab"}))
    assert one.power_sentence() == "One query allows no test."


@pytest.mark.parametrize(
    ("measure", "told"), [("mrr@10", "too few"), ("dcg@10", "differences of ")]
)
def test_no_difference_is_promised_that_no_systems_can_have(measure, told):
    """Two queries would show differences from 3 on: so much in DCG, but not in MRR."""
    systems = {"base": [0.5, 0.5], "new": [0.5, 1.0]}
    values = {s: {measure: {str(i): x for i, x in enumerate(v)}} for s, v in systems.items()}
    [c] = compare(Evaluation([measure], values), baseline="base")
    assert c.detectable > 1 and (c.seen_from is None) == (measure == "mrr@10")
    assert told in c.power_sentence() and f"needs {c.queries_needed}" in c.power_sentence()
