"""Normalisation and fusion of teachers' scores, against ranx and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.retrieval.retrieve import hybrid_run
from retrieval_kd.targets.normalise import (
    agreement,
    agreement_weighted,
    fuse,
    rank_fusion,
    rerank,
    z_scores,
)

FUSIONS = pytest.mark.parametrize("fuse", [rank_fusion, agreement_weighted])


def evenly(fuse, scores):
    return fuse(scores, [1.0] * len(scores))


few = st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0])  # ties are common
matrices = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 7)), elements=few)
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


def test_reranking_orders_as_trec_eval_does():
    run = rerank("teacher", {"q": {"a": 1.0, "b": 1.0, "c": 2.0}})
    assert list(run.results["q"]) == ["c", "b", "a"]


def test_without_ties_rank_fusion_is_ranx():
    scores = np.random.default_rng(0).normal(size=(3, 8))
    runs = [
        Run(str(t), {"q": {f"d{i}": float(s) for i, s in enumerate(row)}})
        for t, row in enumerate(scores)
    ]
    fused = hybrid_run(runs).results["q"]
    np.testing.assert_allclose(
        rank_fusion(scores, [1.0] * len(scores)), [fused[f"d{i}"] for i in range(8)]
    )


def test_weights_of_rank_fusion_by_hand():
    found = rank_fusion(np.array([[2.0, 1.0], [1.0, 2.0]]), [2.0, 1.0])
    assert found == pytest.approx([2 / 61 + 1 / 62, 2 / 62 + 1 / 61])


@FUSIONS
@given(scores=matrices, seed=st.integers(0, 9))
def test_neither_scale_nor_numbering_of_candidates_matters(fuse, scores, seed):
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    expected = evenly(fuse, scores)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(evenly(fuse, scores[:, order]), expected[order], atol=1e-9)
    np.testing.assert_allclose(evenly(fuse, 3 * scores - 7), expected, atol=1e-9)


@FUSIONS
@given(scores=matrices)
def test_a_teacher_that_scores_all_alike_changes_no_order(fuse, scores):
    more = np.vstack([scores, np.full(scores.shape[1], 4.0)])
    before, after = evenly(fuse, scores), evenly(fuse, more)
    if len(scores) == 1 or fuse is rank_fusion:  # of several, agreement drops for all alike
        for i, j in zip(*np.nonzero(before[:, None] > before + 1e-9), strict=True):
            assert after[i] > after[j] - 1e-9


@FUSIONS
def test_all_alike_stays_all_alike(fuse):
    assert np.ptp(evenly(fuse, np.full((3, 5), 2.0))) == pytest.approx(0, abs=1e-12)


def test_a_teacher_that_contradicts_the_others_is_left_out():
    scores = np.array([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    # τ: 1 and −1 average 0 for the two that agree, so all have 0 or less: nobody is left out …
    np.testing.assert_allclose(
        agreement_weighted(scores, [1.0] * len(scores)), z_scores(scores[0]) / 3
    )
    # … and with a third that agrees the odd one is.
    scores = np.vstack([scores[0], scores])
    np.testing.assert_allclose(agreement_weighted(scores, [1.0] * len(scores)), z_scores(scores[0]))


@given(matrices)
def test_agreement_is_between_minus_one_and_one(scores):
    found = agreement(scores)
    assert (np.abs(found) <= 1).all()
    if len(scores) == 2:
        assert found[0] == found[1]


def test_those_that_agree_may_have_no_weight():
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    np.testing.assert_allclose(
        agreement_weighted(scores, [0.0, 0.0, 0.0, 1.0]), z_scores(scores[3])
    )
