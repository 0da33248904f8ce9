"""Weights per query: the policy gradient is exact, and what there is to learn is learnt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad

from retrieval_kd.errors import InputError
from retrieval_kd.targets.chooser import Chooser, expected_reward, features, fit_chooser, subsets
from retrieval_kd.targets.combine import Combination


@given(st.integers(1, 3), st.integers(0, 20))
def test_the_policy_gradient_is_the_derivative(teachers, seed):
    rng = np.random.default_rng(seed)
    sets = subsets(teachers)
    rewards = rng.random((1, len(sets)))

    def value(logits):
        return expected_reward(logits[None], sets, rewards)[0][0]

    def slope(logits):
        return expected_reward(logits[None], sets, rewards)[1][0]

    assert check_grad(value, slope, rng.normal(size=teachers)) < 1e-5


def test_the_expected_reward_is_what_sampling_earns():
    rng = np.random.default_rng(0)
    logits, sets, rewards = np.array([[0.5, -1.0]]), subsets(2), np.array([[0.2, 0.9, 0.4]])
    p = 1 / (1 + np.exp(-logits[0]))
    drawn = (rng.random((40_000, 2)) < p).astype(int)
    drawn = drawn[drawn.any(1)]  # nobody is no choice
    number = drawn @ [2, 1] - 1  # the row of `sets`
    assert (sets[number] == drawn).all()
    earned = rewards[0, number].mean()  # standard error below .002
    assert expected_reward(logits, sets, rewards)[0][0] == pytest.approx(earned, abs=0.01)


def simulated(queries: int, seed: int):
    """Two teachers; who has the clearer lead is right, and the other is wrong."""
    rng = np.random.default_rng(seed)
    lists, rewards = [], []
    for _ in range(queries):
        sure, unsure = np.append(rng.random(9), 4.0), np.append(rng.random(9), 0.9)
        first = bool(rng.integers(2))
        lists.append(np.array([sure, unsure] if first else [unsure, sure]))
        rewards.append([0.0, 1.0, 0.5] if first else [1.0, 0.0, 0.5])
    return lists, np.array(rewards)


def test_it_learns_whom_to_believe_and_keeps_it_for_unseen_queries():
    lists, rewards = simulated(60, seed=0)
    chooser = fit_chooser(np.array([features(scores) for scores in lists]), rewards)
    unseen, wanted = simulated(40, seed=1)
    believed = np.array([chooser.weights(scores) for scores in unseen])  # (40, 2)
    right = believed[:, 0] > believed[:, 1]
    assert (right == (wanted[:, 1] > wanted[:, 0])).mean() > 0.95


def test_rewards_that_are_all_alike_teach_nothing():
    lists, rewards = simulated(20, seed=0)
    found = np.array([features(scores) for scores in lists])
    chooser = fit_chooser(found, np.full_like(rewards, 0.3))
    np.testing.assert_allclose(chooser.weights(lists[0]), [0.5, 0.5], atol=1e-4)


def test_a_chooser_survives_json():
    lists, rewards = simulated(20, seed=0)
    chooser = fit_chooser(np.array([features(scores) for scores in lists]), rewards)
    whole = Combination("learned", chooser=chooser, teachers=("a", "b"))
    assert Combination.from_dict(json.loads(json.dumps(whole.as_dict()))) == whole


@given(st.integers(1, 4), st.integers(1, 6))
def test_equal_scores_have_no_features_and_fuse_to_equal_scores(teachers, count):
    alike = np.full((teachers, count), 2.5)
    assert not features(alike).any()
    shape = (teachers, 3)
    chooser = Chooser(
        tuple((1.0, 2.0, 3.0, 4.0) for _ in range(teachers)),
        tuple(map(tuple, np.zeros(shape))),
        tuple(map(tuple, np.ones(shape))),
    )
    assert not chooser.fuse(alike).any()


def test_too_many_teachers_are_refused():
    with pytest.raises(InputError, match="6 teachers, not 7"):
        subsets(7)
