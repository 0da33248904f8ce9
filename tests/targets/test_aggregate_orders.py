"""Scores from orders, against ranks counted one by one, pairs, and scipy's optimum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from retrieval_kd.errors import InputError
from retrieval_kd.targets.aggregate_orders import (
    ORDER_AGGREGATIONS,
    Order,
    borda,
    discounted_rank,
    plackett_luce,
    reciprocal_rank,
)
from retrieval_kd.targets.aggregate_pairs import bradley_terry

AGGREGATIONS = pytest.mark.parametrize("aggregate", ORDER_AGGREGATIONS.values())
N = 6


@st.composite
def orders(draw):
    """A window of the candidates, of which the end may be left unordered."""
    shown = draw(st.permutations(range(N)))[: draw(st.integers(1, N))]
    cut = draw(st.integers(1, len(shown)))
    return Order(tuple(shown[:cut]), below=tuple(shown[cut:]))


many_orders = st.lists(orders(), max_size=5)


@given(many_orders)
def test_rank_scores_by_counting(given_orders):
    for candidate in range(N):
        reciprocal, shares, discounts = [], [], []
        for order in given_orders:
            if candidate in order.ranked:
                rank = order.ranked.index(candidate) + 1.0
            elif candidate in order.below:
                behind = range(len(order.ranked) + 1, len(order) + 1)
                rank = sum(behind) / len(behind)
            else:
                continue
            reciprocal.append(1 / rank)
            discounts.append(np.log(2) / np.log(1 + rank))
            if len(order) > 1:
                shares.append((len(order) - rank) / (len(order) - 1))
        for found, values in (
            (reciprocal_rank(N, given_orders), reciprocal),
            (discounted_rank(N, given_orders), discounts),
            (borda(N, given_orders), shares),
        ):
            expected = sum(values) / len(values) if values else np.nan
            assert found[candidate] == pytest.approx(expected, nan_ok=True)


@settings(max_examples=40)
@given(many_orders, st.sampled_from([0.1, 1.0]))
def test_plackett_luce_is_the_optimum_that_scipy_finds(given_orders, prior):
    useful = [o for o in given_orders if len(o) > 1]
    there = sorted({i for o in useful for i in (*o.ranked, *o.below)})
    ours = plackett_luce(N, given_orders, prior=prior)
    assert np.isnan(np.delete(ours, there)).all()
    if not there:
        return

    def loss(s):  # the last one is the average candidate
        total = 0.0
        for order in useful:
            for at, chosen in enumerate(order.ranked):
                rest = [*order.ranked[at:], *order.below]
                total += s[chosen] - np.logaddexp.reduce(s[rest])
        for i in there:
            total += prior / 2 * (s[i] + s[N] - 2 * np.logaddexp(s[i], s[N]))
        return -total

    best = minimize(loss, np.zeros(N + 1), method="BFGS", options={"gtol": 1e-7}).x[there]
    np.testing.assert_allclose(ours[there], best - best.mean(), atol=2e-3)


@given(st.lists(st.sampled_from(list(itertools.combinations(range(4), 2))), unique=True))
def test_plackett_luce_of_pairs_is_bradley_terry(pairs):
    found = np.full((4, 4), np.nan)
    for i, j in pairs:
        found[i, j], found[j, i] = 1.0, 0.0
    orders = [Order(pair) for pair in pairs]
    np.testing.assert_allclose(plackett_luce(4, orders), bradley_terry(found), atol=1e-6)


@AGGREGATIONS
@given(st.permutations(range(N)))
def test_one_whole_order_is_kept(aggregate, order):
    found = aggregate(N, [Order(tuple(order))])
    assert (np.diff(found[order]) < 0).all() and np.isfinite(found).all()


@AGGREGATIONS
def test_an_order_and_its_reverse_are_fair_to_the_two_ends(aggregate):
    found = aggregate(3, [Order((0, 1, 2)), Order((2, 1, 0))])
    assert found[0] == pytest.approx(found[2])


@AGGREGATIONS
def test_what_is_left_unordered_is_equal(aggregate):
    found = aggregate(4, [Order((1,), below=(0, 2, 3))])
    assert found[1] > found[0]
    np.testing.assert_allclose(found[[2, 3]], found[0])


@AGGREGATIONS
def test_nothing_said_of_a_candidate_is_no_score(aggregate):
    found = aggregate(4, [Order((2, 1))])
    np.testing.assert_array_equal(np.isnan(found), [True, False, False, True])
    assert np.isnan(aggregate(2, [])).all()


def test_a_candidate_cannot_stand_in_two_places():
    with pytest.raises(InputError, match="twice"):
        Order((1, 2), below=(1,))


def test_a_prior_of_nothing_is_refused():
    with pytest.raises(InputError, match="above 0"):
        plackett_luce(2, [Order((0, 1))], prior=0.0)
