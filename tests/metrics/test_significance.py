"""Tests between systems agree with scipy and ranx and err as often as they should."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from ranx.statistical_tests import compute_statistical_significance
from scipy import stats

from retrieval_kd.errors import InputError
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.significance import (
    bootstrap_interval,
    compare,
    holm,
    randomisation_test,
    t_test,
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
    assert result.p == pytest.approx(theirs, rel=1e-6, abs=0 if method == "t" else 0.01)


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
