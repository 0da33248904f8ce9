"""Slates of every kind, and what is left out as likely relevant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.errors import Drops, InputError
from retrieval_kd.training.batches.sampling import denoised, draw, without_false_negatives
from retrieval_kd.training.batches.slates import Pool


def pool(size: int, relevant: int | None = 0) -> Pool:
    """Candidates 0, 1, … with falling teacher scores."""
    gains = np.zeros(size, np.int64)
    if relevant is not None:
        gains[relevant] = 1
    return Pool("q", np.arange(size), -np.arange(size, dtype=np.float32), gains)


@given(
    st.integers(2, 30),
    st.integers(2, 10),
    st.sampled_from(["random", "stratified", "hardest"]),
    st.integers(0, 5),
)
def test_a_slate_has_its_positive_first_and_nobody_twice(candidates, size, sampling, seed):
    rng = np.random.default_rng(seed)
    relevant = int(rng.integers(candidates))
    slate = draw(pool(candidates, relevant), size, 30, rng, sampling)
    assert slate.positions[0] == relevant
    assert len(set(slate.positions.tolist())) == len(slate.positions) == min(size, candidates)


def test_the_hardest_are_the_teachers_best():
    slate = draw(pool(10, 3), 4, 10, np.random.default_rng(0), "hardest")
    assert slate.positions.tolist() == [3, 0, 1, 2]


@given(st.integers(0, 50))
def test_a_stratified_slate_spans_the_scores(seed):
    slate = draw(pool(13, 0), 4, 13, np.random.default_rng(seed), "stratified")
    first, middle, last = slate.positions[1:]
    assert 1 <= first <= 4 < middle <= 8 < last <= 12


def test_what_is_better_than_the_judged_document_is_left_out_and_counted():
    drops = Drops()
    kept = without_false_negatives([pool(6, 2)], 0.0, drops)
    assert kept[0].positions.tolist() == [2, 3, 4, 5]
    assert "likely false negative left out" in drops.summary()[0]


def test_the_margin_reaches_below_the_judged_document():
    kept = without_false_negatives([pool(6, 2)], 1.5, Drops())
    assert kept[0].positions.tolist() == [2, 4, 5]
    assert sorted(kept[0].ignored) == [0, 1, 3]  # nor negatives where others bring them


@pytest.mark.parametrize("relevant", [None, 0])
def test_without_a_scored_judgment_nothing_is_left_out(relevant):
    given_pool = pool(5, relevant)
    if relevant is not None:
        given_pool.teacher[relevant] = np.nan
    assert without_false_negatives([given_pool], 9.0, Drops())[0] is given_pool


def test_members_follow():
    given_pool = pool(4, 1)
    with_members = Pool(
        "q",
        given_pool.positions,
        given_pool.teacher,
        given_pool.gains,
        np.arange(8.0).reshape(2, 4),
    )
    kept = without_false_negatives([with_members], 0.0, Drops())[0]
    assert kept.members.tolist() == [[1, 2, 3], [5, 6, 7]]


def test_bands_draw_as_often_from_few_close_calls_as_from_many_easy_ones():
    """90 candidates at about 0, two at about 1: a slate of two others has one of each."""
    scores = np.concatenate([[1.0, 0.99], np.linspace(0.01, 0.0, 90)]).astype(np.float32)
    gains = np.zeros(93, np.int64)
    gains[92] = 1
    many = Pool("q", np.arange(93), np.append(scores, np.float32(-1.0)), gains)
    many.teacher[92] = np.nan
    rng = np.random.default_rng(0)
    drawn = [draw(many, 3, 93, rng, "bands").positions[1:] for _ in range(200)]
    close = np.mean([position < 2 for slate in drawn for position in slate])
    assert 0.4 < close < 0.6
    assert all(len(set(slate)) == 2 for slate in drawn)


def test_bands_without_scores_draw_from_everything():
    unscored = Pool("q", np.arange(5), np.full(5, np.nan, np.float32), np.array([1, 0, 0, 0, 0]))
    drawn = draw(unscored, 5, 5, np.random.default_rng(0), "bands")
    assert sorted(drawn.positions) == [0, 1, 2, 3, 4]


def test_denoised_pools_hold_what_the_teacher_is_sure_of():
    drops = Drops()
    scores = np.array([3.0, 1.0, 0.5, np.nan, -2.0])
    unsure = Pool("q", np.arange(5), scores, np.array([0, 0, 1, 0, 0]), scores[None])
    nothing = Pool("r", np.arange(2), np.array([1.0, 0.0]), np.array([0, 0]))
    (kept,) = denoised([unsure, nothing], -1.0, 2.0, drops)
    assert kept.positions.tolist() == [0, 2, 4] and kept.gains.tolist() == [1, 1, 0]
    assert kept.members.shape == (1, 3) and kept.ignored.tolist() == [1, 3]
    assert any("without a sure" in line for line in drops.summary())


def test_limits_that_leave_no_query_are_an_error():
    """Not a training without denoised slates, or one on nothing."""
    with pytest.raises(InputError, match="sure of no query"):
        denoised([pool(6, 2)], -9.0, 9.0, Drops())
    with pytest.raises(InputError, match="no query is left"):
        without_false_negatives([pool(6, 5)], 9.0, Drops())
