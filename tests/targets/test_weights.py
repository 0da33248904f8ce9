"""Weights come from a grid; evidence decides, and equal weights where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_kd.targets.weights import best, cautious, shares


@pytest.mark.parametrize(("rankers", "count"), [(2, 12), (3, 67), (4, 287), (5, 71)])
def test_all_shares_of_tenths_or_quarters_are_tried_and_equal_ones(rankers, count):
    tried = shares(rankers)
    assert len(tried) == count and tried[0] == (1 / rankers,) * rankers
    assert all(sum(share) == pytest.approx(1) for share in tried)
    assert tuple(np.eye(rankers)[0]) in tried


def test_the_highest_mean_is_chosen_and_of_equal_ones_the_nearest_to_equal_weights():
    tried = [(0.5, 0.5), (0.1, 0.9), (0.3, 0.7)]
    assert best(tried, np.array([[0.1, 0.2], [0.4, 0.2], [0.3, 0.3]])) == (0.3, 0.7)
    assert best(tried, np.zeros((3, 4))) == (0.5, 0.5)


def test_careful_weights_leave_equal_ones_only_for_clear_evidence():
    tried = [(0.5, 0.5), (0.0, 1.0)]
    chance = np.random.default_rng(0).uniform(size=60)
    assert cautious(tried, np.array([chance, chance + 0.2])) == (0.0, 1.0)
    noisy = np.array([chance, np.random.default_rng(1).uniform(size=60) + 0.02])
    assert cautious(tried, noisy) == (0.5, 0.5)
