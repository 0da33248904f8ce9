"""Selection takes the queries that a criterion means, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.errors import Drops, InputError
from retrieval_kd.training.batches.selection import (
    denoised,
    pool_scores,
    select_pools,
    without_false_negatives,
)
from retrieval_kd.training.batches.slates import Pool, digest_pools


def pool(name: str, teacher, gains=(1, 0, 0)) -> Pool:
    return Pool(name, np.arange(3), np.array(teacher, np.float32), np.array(gains))


def names(pools) -> list[str]:
    return [p.query for p in pools]


def test_uncertainty_is_of_the_student_alone():
    pools = [pool("sure", [0, 0, 0]), pool("unsure", [0, 0, 0])]
    scores = [np.array([0.9, 0.1, 0.1]), np.array([0.5, 0.5, 0.5])]
    assert names(select_pools(pools, scores, 0.5, "uncertainty")) == ["unsure"]


def test_divergence_is_where_teacher_and_student_disagree():
    pools = [pool("agreed", [9, 0, 0]), pool("disputed", [9, 0, 0])]
    scores = [np.array([0.9, 0.1, 0.1]), np.array([0.1, 0.9, 0.1])]
    assert names(select_pools(pools, scores, 0.5, "divergence")) == ["disputed"]


def test_learnable_is_hard_for_the_student_and_easy_for_the_teacher():
    wrong = np.array([0.1, 0.9, 0.1])
    pools = [
        pool("known already", [9, 0, 0]),
        pool("hard for both", [0, 9, 0]),
        pool("learnable", [9, 0, 0]),
    ]
    scores = [np.array([0.9, 0.1, 0.1]), wrong, wrong]
    assert names(select_pools(pools, scores, 1 / 3, "learnability")) == ["learnable"]


def test_a_silent_teacher_is_chosen_last():
    nan = float("nan")
    pools = [pool("silent", [nan, nan, nan]), pool("said", [1, 0, 0])]
    scores = [np.array([0.1, 0.9, 0.1])] * 2
    assert names(select_pools(pools, scores, 0.5, "divergence")) == ["said"]


@given(st.integers(1, 12), st.floats(0.01, 1.0), st.sampled_from(["uncertainty", "divergence"]))
def test_the_share_is_kept_in_the_order_given(count, share, by):
    rng = np.random.default_rng(count)
    pools = [pool(f"{i:02}", rng.normal(size=3)) for i in range(count)]
    chosen = names(select_pools(pools, [rng.normal(size=3) for _ in pools], share, by))
    assert len(chosen) == max(1, round(share * count)) and chosen == sorted(chosen)


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InputError, match="share"):
        select_pools([pool("q", [1, 0, 0])], [np.zeros(3)], share, "divergence")


def test_the_students_scores_are_those_of_its_vectors(tiny_collection, tiny_encoder):
    from sentence_transformers import SentenceTransformer

    from retrieval_kd.data.collection import open_collection

    documents = open_collection(str(tiny_collection)).documents
    candidates = Pool("sparrow wing", np.array([5, 0]), np.zeros(2), np.zeros(2))
    (scores,), temperature = pool_scores(str(tiny_encoder), [candidates], documents)
    assert temperature == 0.05
    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    texts = [documents.at(5).full, documents.at(0).full]
    expected = model.similarity(model.encode_query(["sparrow wing"]), model.encode_document(texts))[
        0
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def scored_pool(size: int, relevant: int | None = 0) -> Pool:
    """Candidates 0, 1, … with falling teacher scores."""
    gains = np.zeros(size, np.int64)
    if relevant is not None:
        gains[relevant] = 1
    return Pool("q", np.arange(size), -np.arange(size, dtype=np.float32), gains)


def test_what_is_better_than_the_judged_document_is_left_out_and_counted():
    drops = Drops()
    kept = without_false_negatives([scored_pool(6, 2)], 0.0, drops)
    assert kept[0].positions.tolist() == [2, 3, 4, 5]
    assert "likely false negative left out" in drops.summary()[0]


def test_the_margin_reaches_below_the_judged_document():
    kept = without_false_negatives([scored_pool(6, 2)], 1.5, Drops())
    assert kept[0].positions.tolist() == [2, 4, 5]
    assert sorted(kept[0].ignored) == [0, 1, 3]  # nor negatives where others bring them


@pytest.mark.parametrize("relevant", [None, 0])
def test_without_a_scored_judgment_nothing_is_left_out(relevant):
    given_pool = scored_pool(5, relevant)
    if relevant is not None:
        given_pool.teacher[relevant] = np.nan
    found = without_false_negatives([given_pool], 9.0, Drops())
    assert digest_pools(found) == digest_pools([given_pool])


def test_members_follow():
    given_pool = scored_pool(4, 1)
    with_members = Pool(
        "q",
        given_pool.positions,
        given_pool.teacher,
        given_pool.gains,
        np.arange(8.0).reshape(2, 4),
    )
    kept = without_false_negatives([with_members], 0.0, Drops())[0]
    assert kept.members.tolist() == [[1, 2, 3], [5, 6, 7]]


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
        denoised([scored_pool(6, 2)], -9.0, 9.0, Drops())
    with pytest.raises(InputError, match="no query is left"):
        without_false_negatives([scored_pool(6, 5)], 9.0, Drops())
