"""Scores from pairs, against closed forms, duels counted one by one, and scipy's optimum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from retrieval_kd.errors import InputError
from retrieval_kd.targets.aggregate_pairs import (
    PAIR_AGGREGATIONS,
    bradley_terry,
    copeland,
    preferences_of,
    win_rate,
)

AGGREGATIONS = pytest.mark.parametrize("aggregate", PAIR_AGGREGATIONS.values())


@st.composite
def preference_matrices(draw, most=7):
    """Some pairs of some candidates, both directions agreeing."""
    n = draw(st.integers(1, most))
    found = np.full((n, n), np.nan)
    for i, j in itertools.combinations(range(n), 2):
        if draw(st.booleans()):
            found[i, j] = draw(st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0]))
            found[j, i] = 1 - found[i, j]
    return found


def of_strengths(strengths):
    found = expit(strengths[:, None] - strengths)
    np.fill_diagonal(found, np.nan)
    return found


def test_a_preference_is_the_mean_of_both_orders():
    shown = np.array([[0, 1], [1, 0], [0, 2]])
    found = preferences_of(3, shown, logit(np.array([0.9, 0.3, 0.6])))
    assert found[0, 1] == pytest.approx((0.9 + 0.7) / 2)
    assert found[1, 0] == pytest.approx(1 - found[0, 1])
    assert np.isnan(found[0, 2])  # asked in one order only


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(-30, 30)), max_size=30))
def test_both_directions_of_a_preference_sum_to_one(answers):
    shown = np.array([[i, j] for i, j, _ in answers], dtype=np.int64).reshape(-1, 2)
    found = preferences_of(5, shown, np.array([x for *_, x in answers]))
    asked = ~np.isnan(found)
    assert (asked == asked.T).all() and not asked.diagonal().any()
    np.testing.assert_allclose((found + found.T)[asked], 1.0)


def test_a_failed_answer_makes_its_pair_unasked():
    both = preferences_of(2, np.array([[0, 1], [1, 0]]), np.array([3.0, np.nan]))
    assert np.isnan(both).all()


def test_an_order_bias_does_not_reach_the_ranking_of_a_full_tournament():
    """A model that adds 1.5 to the log-odds of whatever stands first."""
    strengths = np.array([0.3, -1.0, 2.0, 0.0])
    shown = np.array(list(itertools.permutations(range(4), 2)))
    log_odds = strengths[shown[:, 0]] - strengths[shown[:, 1]] + 1.5
    found = preferences_of(4, shown, log_odds)
    for aggregate in PAIR_AGGREGATIONS.values():
        np.testing.assert_array_equal(np.argsort(aggregate(found)), np.argsort(strengths))


@given(preference_matrices())
def test_win_rate_and_copeland_by_counting_duels(found):
    rates, balances = win_rate(found), copeland(found)
    for i in range(len(found)):
        met = [found[i, j] for j in range(len(found)) if j != i and not np.isnan(found[i, j])]
        if not met:
            assert np.isnan(rates[i]) and np.isnan(balances[i])
            continue
        assert rates[i] == pytest.approx(sum(met) / len(met))
        won, lost = sum(p > 0.5 for p in met), sum(p < 0.5 for p in met)
        assert balances[i] == pytest.approx((won - lost) / len(met))


@given(st.floats(0.02, 0.98))
def test_bradley_terry_of_two_candidates_is_the_log_odds(p):
    found = bradley_terry(np.array([[np.nan, p], [1 - p, np.nan]]), prior=1e-7)
    assert found[0] - found[1] == pytest.approx(logit(p), abs=1e-4)


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=8))
def test_bradley_terry_finds_the_strengths_that_made_the_preferences(strengths):
    strengths = np.array(strengths)
    found = bradley_terry(of_strengths(strengths), prior=1e-7)
    np.testing.assert_allclose(found, strengths - strengths.mean(), atol=1e-4)


@settings(max_examples=40)
@given(preference_matrices(most=6), st.sampled_from([0.1, 1.0]))
def test_bradley_terry_is_the_optimum_that_scipy_finds(found, prior):
    asked = ~np.isnan(found)
    there = asked.any(1)
    if not there.any():
        assert np.isnan(bradley_terry(found)).all()
        return
    n = len(found)

    def loss(s):  # the last one is the average candidate
        known = np.where(asked, found, 0) * log_expit(s[:n, None] - s[:n])
        met = np.where(there, log_expit(s[:n] - s[n]) + log_expit(s[n] - s[:n]), 0)
        return -known.sum() - prior / 2 * met.sum()

    best = minimize(loss, np.zeros(n + 1), method="BFGS", options={"gtol": 1e-7}).x[:n][there]
    ours = bradley_terry(found, prior=prior)
    assert np.isnan(ours[~there]).all()
    np.testing.assert_allclose(ours[there], best - best.mean(), atol=2e-3)


def test_bradley_terry_ranks_a_chain_that_the_win_rate_cannot():
    """Neighbours only, as in adjacent pairs: the best and the middle one won the same share."""
    chain = np.full((5, 5), np.nan)
    for i in range(4):
        chain[i, i + 1], chain[i + 1, i] = 1.0, 0.0
    assert (np.diff(bradley_terry(chain)) < 0).all()
    assert win_rate(chain)[1] == win_rate(chain)[3]


@AGGREGATIONS
def test_all_ties_are_equal_scores(aggregate):
    tied = np.full((6, 6), 0.5)
    assert np.ptp(aggregate(tied)) == pytest.approx(0, abs=1e-12)
    assert np.isfinite(aggregate(tied)).all()


@AGGREGATIONS
@given(found=preference_matrices(), seed=st.integers(0, 9))
def test_the_numbering_of_candidates_does_not_matter(aggregate, found, seed):
    order = np.random.default_rng(seed).permutation(len(found))
    np.testing.assert_allclose(
        aggregate(found[np.ix_(order, order)]), aggregate(found)[order], atol=1e-6
    )


@AGGREGATIONS
def test_nothing_asked_is_nothing_said(aggregate):
    assert np.isnan(aggregate(np.full((3, 3), np.nan))).all()
    assert aggregate(np.zeros((0, 0))).shape == (0,)


@AGGREGATIONS
def test_always_winning_is_finite_and_first(aggregate):
    found = aggregate(of_strengths(np.array([1e6, 0.0, -1e6])))
    assert np.isfinite(found).all() and found.argmax() == 0 and found.argmin() == 2


def test_a_prior_of_nothing_is_refused():
    with pytest.raises(InputError, match="above 0"):
        bradley_terry(np.full((2, 2), 0.5), prior=0.0)
