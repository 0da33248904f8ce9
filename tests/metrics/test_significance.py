"""Tests between systems, and their power, agree with scipy, ranx and statsmodels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranx.statistical_tests import compute_statistical_significance
from scipy import stats
from statsmodels.stats.power import TTestPower

from retrieval_kd.errors import InputError
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.significance import (
    bootstrap_interval,
    compare,
    detectable_difference,
    holm,
    queries_needed,
    randomisation_test,
    t_test,
    t_test_power,
)


def of(**systems) -> Evaluation:
    """An evaluation with these values per query."""
    return Evaluation(
        ["ndcg@10"],
        {
            name: {"ndcg@10": {f"q{i}": float(v) for i, v in enumerate(values)}}
            for name, values in systems.items()
        },
    )


def test_p_of_the_t_test_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.random(50), rng.random(50)
    [result] = compare(of(a=a, b=b), baseline="b")
    assert result.p_t == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6)
    assert result.effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1))


@pytest.mark.parametrize(("method", "name"), [("t", "student"), ("randomisation", "fisher")])
def test_p_is_that_of_ranxs_compare(method, name):
    rng = np.random.default_rng(1)
    a = rng.random(40)
    b = np.clip(a + rng.normal(0.04, 0.15, 40), 0, 1)
    [result] = compare(of(a=a, b=b), method=method)
    theirs = compute_statistical_significance(
        ["a", "b"],
        {"a": {"ndcg@10": a}, "b": {"ndcg@10": b}},
        stat_test=name,
        n_permutations=10_000,
    )[frozenset(["a", "b"])]["ndcg@10"]["p_value"]
    assert result.p == pytest.approx(
        theirs, rel=1e-6, abs=0 if method == "t" else 0.025
    )  # ranx draws unseeded


def test_p_of_the_randomisation_test_is_scipys():
    rng = np.random.default_rng(2)
    d = rng.normal(0.05, 0.2, 60)
    theirs = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=20_000, rng=3
    ).pvalue
    assert randomisation_test(d) == pytest.approx(theirs, abs=0.012)


def test_the_randomisation_test_is_exact_on_few_queries():
    d = np.array([0.3, 0.1, -0.05, 0.2, 0.0])
    signs = list(itertools.product((-1, 1), repeat=4))
    exact = np.mean([abs(np.dot(s, d[:4])) >= d.sum() - 1e-12 for s in signs])
    assert randomisation_test(d) == exact


@pytest.mark.parametrize("test", [t_test, lambda d: randomisation_test(d, resamples=1000)])
def test_without_a_difference_five_percent_are_found_significant(test):
    rng = np.random.default_rng(4)
    # values as nDCG has them: many exact zeros and ones
    draw = lambda: np.clip(rng.normal(0.5, 0.5, (1000, 60)), 0, 1)  # noqa: E731
    rate = np.mean([test(d) < 0.05 for d in draw() - draw()])
    assert 0.03 < rate < 0.07


def test_holm_keeps_the_chance_of_any_false_finding_below_five_percent():
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(400, 40))
    wrong = corrected = 0
    for row in shared:
        p = [t_test(rng.normal(size=40) - row) for _ in range(6)]
        wrong += min(p) < 0.05
        corrected += min(holm(p)) < 0.05
    assert corrected / 400 < 0.07 < wrong / 400


def test_holms_correction_by_hand():
    # sorted .005 .01 .03 .04, times 4 3 2 1, then never falling
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_covers_the_truth_in_about_95_percent():
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.normal(0.1, 0.3, 80), resamples=1000)
        covered += low <= 0.1 <= high
    assert 0.91 < covered / 300 < 0.98


@pytest.mark.parametrize("method", ["t", "randomisation"])
def test_identical_systems_differ_with_p_one(method):
    values = [0.1, 0.5, 0.9]
    [result] = compare(of(a=values, b=values), method=method)
    assert (result.p, result.p_t, result.p_randomisation, result.p_holm) == (1, 1, 1, 1)
    assert (result.difference, result.low, result.high, result.effect) == (0, 0, 0, 0)
    assert (result.wins, result.ties, result.losses) == (0, 3, 0)


def test_degenerate_differences_give_no_nan():
    for a, b in [([1.0], [0.0]), ([1.0, 1.0], [0.5, 0.5]), ([0.3] * 50, [0.1] * 50)]:
        [result] = compare(of(a=a, b=b))
        assert not any(map(math.isnan, (result.p_t, result.p_randomisation, result.low)))
    [single] = compare(of(a=[1.0], b=[0.0]))
    assert single.p_t == single.p_randomisation == 1.0


def test_a_few_equal_differences_are_no_proof():
    """Their t is infinite, whatever their number; p is that of the exact randomisation test."""
    for count in (2, 5, 6, 10):
        [result] = compare(of(a=[1.0] * count, b=[0.5] * count))
        assert result.p_t == pytest.approx(result.p_randomisation) == 2 / 2**count
        assert result.significant() == (count >= 6)


def test_rounding_errors_are_ties():
    [result] = compare(of(a=[0.1 + 0.2, 0.5], b=[0.3, 0.5]))
    assert result.ties == 2 and result.p == 1


def test_pairs_and_families():
    rng = np.random.default_rng(7)
    evaluation = of(a=rng.random(30), b=rng.random(30), c=rng.random(30))
    assert [(c.a, c.b) for c in compare(evaluation)] == [("b", "a"), ("c", "a"), ("c", "b")]
    against = compare(evaluation, baseline="b")
    assert [(c.a, c.b) for c in against] == [("a", "b"), ("c", "b")]
    assert [c.p_holm for c in against] == holm([c.p for c in against])
    assert compare(evaluation) == compare(evaluation), "same seed, same result"


def test_seeds_are_one_system_with_a_spread():
    rng = np.random.default_rng(8)
    base, first, second = rng.random(30), rng.random(30), rng.random(30)
    runs = of(**{"base": base, "new#1": first, "new#2": second})
    [result] = compare(runs.group(), baseline="base")
    assert result.p_t == pytest.approx(stats.ttest_rel((first + second) / 2, base).pvalue, rel=1e-6)
    assert result.spread_a == pytest.approx(np.std([first.mean(), second.mean()], ddof=1))
    assert result.spread_b is None


def test_wrong_names_are_errors():
    with pytest.raises(InputError, match="unknown system"):
        compare(of(a=[1.0], b=[0.0]), baseline="c")
    with pytest.raises(InputError, match="unknown test"):
        compare(of(a=[1.0], b=[0.0]), method="wilcoxon")
    with pytest.raises(InputError, match="was not evaluated"):
        compare(of(a=[1.0], b=[0.0]), measures="map")


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
