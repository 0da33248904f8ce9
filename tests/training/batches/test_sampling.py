"""Slates of every kind, and what is left out as likely relevant."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.training.batches.sampling import draw
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
