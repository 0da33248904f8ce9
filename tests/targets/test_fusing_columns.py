"""Fusion of columns, bit by bit against the same formulas on dictionaries, query by query."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.scores import Names, ScoreTable
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.targets.calibrate import Calibration
from retrieval_kd.targets.combine import Combination
from retrieval_kd.targets.normalise import (
    agreement_weighted,
    fuse,
    fuse_by,
    rank_fusion,
    z_scores,
)

QUERIES, DOCUMENTS = ["q0", "q1", "q2"], [f"d{i}" for i in range(12)]
numbers = st.floats(-100, 100, width=32) | st.sampled_from([0.0, 1.0])
teachers = st.lists(
    st.dictionaries(st.sampled_from(QUERIES), st.dictionaries(st.sampled_from(DOCUMENTS), numbers)),
    min_size=1,
    max_size=3,
)


def z_of_one(values):
    if values.std() <= 1e-7 * max(1.0, float(np.abs(values).max(initial=0.0))):
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


def weighted_sum(scores, weights, z):
    rows = [z_of_one(row) if z else row for row in scores]
    return sum((w * row for w, row in zip(weights, rows, strict=True)), np.zeros(scores.shape[1]))


def one_by_one(function, lists, drops, names):
    """Fuse dictionaries query by query."""
    fused = {}
    for query in dict.fromkeys(q for scores in lists for q in scores):
        found = [scores.get(query, {}) for scores in lists]
        shared = [d for d in found[0] if all(d in other for other in found[1:])]
        every = len({d for scores in found for d in scores})
        if not names and len(shared) < every:
            drops.add("candidate not scored by every teacher", query, every - len(shared))
        for name, scores in zip(names, found, strict=False):
            if len(scores) < every:
                drops.add(f"candidate that {name} did not score", query, every - len(scores))
        if shared:
            rows = np.array([[scores[d] for d in shared] for scores in found], np.float64)
            fused[query] = dict(zip(shared, function(rows).tolist(), strict=True))
    return fused


def same(found, expected, drops, expected_drops):
    assert [(q, list(d.items())) for q, d in found.items()] == [
        (q, list(d.items())) for q, d in expected.items()
    ]
    assert drops.summary() == expected_drops.summary()


@given(teachers, st.booleans(), st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_sums_are_those_of_the_dictionaries(lists, z, named, in_columns, random):
    weights = [random.choice([1.0, 0.3, 2.5]) for _ in lists]
    names = [f"t{i}" for i in range(len(lists))] if named else []
    drops, expected_drops = Drops(), Drops()
    sums = partial(weighted_sum, weights=weights, z=z)
    expected = one_by_one(sums, lists, expected_drops, names)
    numbering = Names()
    given_lists = [ScoreTable.of(scores, numbering) for scores in lists] if in_columns else lists
    if not expected:
        with pytest.raises(InputError, match="no candidate was scored by all"):
            fuse(given_lists, weights, drops, normalise=z, names=names)
    else:
        found = fuse(given_lists, weights, drops, normalise=z, names=names)
        same(found, expected, drops, expected_drops)


@pytest.mark.parametrize("function", [rank_fusion, agreement_weighted])
@given(teachers)
def test_other_fusions_are_those_of_the_dictionaries(function, lists):
    own = partial(function, weights=[1.0, 0.5, 2.0][: len(lists)])
    drops, expected_drops = Drops(), Drops()
    expected = one_by_one(own, lists, expected_drops, [])
    if expected:
        same(fuse_by(own, lists, drops), expected, drops, expected_drops)


@given(teachers)
def test_calibrated_sums_are_those_of_the_dictionaries(lists):
    maps = [Calibration("platt", 9, 0.7, 0.2), Calibration("isotonic", 9, 0, 0, (0, 1), (0.2, 0.9))]
    maps = {f"t{i}": maps[i % 2] for i in range(len(lists))}
    by_name = dict(zip(maps, lists, strict=True))
    odds = [
        {q: {d: float(m.log_odds(np.array([s]))[0]) for d, s in f.items()} for q, f in one.items()}
        for m, one in zip(maps.values(), lists, strict=True)
    ]
    weights = dict.fromkeys(maps, 0.5)
    sums = partial(weighted_sum, weights=list(weights.values()), z=False)
    expected = one_by_one(sums, odds, Drops(), [])
    if expected:
        assert Combination("calibrated", maps).fuse(by_name, weights) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_z_scores_of_many_queries_at_once_are_bitwise_those_of_one(dtype):
    rng = np.random.default_rng(0)
    for count in [*range(1, 140), 255, 256, 1000, 9000]:
        stack = (rng.normal(size=(5, count)) * 10.0 ** rng.integers(-3, 4)).astype(dtype)
        stack[0] = stack[0, 0]
        expected = np.array([z_of_one(row.copy()) for row in stack])
        assert z_scores(stack).tobytes() == expected.tobytes()
