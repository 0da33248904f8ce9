"""Normalisation and fusion of teachers' scores, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.errors import Drops, InputError
from retrieval_kd.targets.normalise import fuse, rerank, z_scores

numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30)


@given(numbers, st.floats(0.01, 100), st.floats(-100, 100))
def test_z_scores_have_mean_zero_and_deviation_one_or_are_all_zero(values, scale, shift):
    z = z_scores(np.array(values))
    assert np.isfinite(z).all()
    if z.any():
        assert abs(z.mean()) < 1e-6 and abs(z.std() - 1) < 1e-6
    moved = scale * np.array(values) + shift
    if z.any() and moved.std() > 1e-5 * max(1.0, np.abs(moved).max()):  # else it is rounding
        np.testing.assert_allclose(z_scores(moved), z, atol=1e-3)


def test_equal_scores_become_zeros():
    assert z_scores(np.full(7, 0.1)).tolist() == [0.0] * 7


def test_fusion_by_hand():
    one = {"q": {"a": 1.0, "b": 3.0, "only-one": 9.0}}
    two = {"q": {"a": 40.0, "b": 20.0}}
    drops = Drops()
    assert fuse([one, two], [1.0, 0.25], drops) == {"q": {"a": -0.75, "b": 0.75}}
    assert drops.counts == {"candidate not scored by every teacher": 1}


def test_a_candidate_that_is_left_out_counts_for_each_teacher_that_lacks_it():
    one = {"q": {"a": 1.0, "b": 3.0, "only-one": 9.0}}
    two = {"q": {"a": 40.0, "b": 20.0, "only-two": 1.0, "also-two": 0.0}}
    drops = Drops()
    fused = fuse([one, two], [1.0, 0.25], drops, names=["one", "two"])
    assert fused == fuse([one, two], [1.0, 0.25])
    assert drops.counts == {"candidate that one did not score": 2,
                            "candidate that two did not score": 1}  # fmt: skip


def test_a_single_teacher_stays_raw():
    assert fuse([{"q": {"a": 7.5, "b": -2.0}}], [1.0]) == {"q": {"a": 7.5, "b": -2.0}}


def test_the_scale_can_be_fixed_whatever_the_number_of_teachers():
    assert fuse([{"q": {"a": 20.0, "b": 10.0}}], [1.0], normalise=True) == {
        "q": {"a": 1.0, "b": -1.0}
    }


def test_a_weight_for_each_teacher():
    with pytest.raises(InputError, match="2 weights for 1 teachers"):
        fuse([{"q": {"a": 1.0}}], [1, 1])


def test_nothing_in_common_is_an_error():
    with pytest.raises(InputError, match="no candidate"):
        fuse([{"q": {"a": 1.0}}, {"q": {"b": 1.0}}], [1, 1])


def test_reranking_orders_by_score_and_then_by_id():
    run = rerank("teacher", {"q": {"b": 1.0, "a": 1.0, "c": 2.0}})
    assert list(run.results["q"]) == ["c", "a", "b"]
