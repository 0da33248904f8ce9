"""`tune`: what it chooses keeps enough, within the budget, and is checked with other queries."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.indexing.tune import (
    Point,
    Target,
    build,
    candidates,
    choose,
    hits,
    lower_bound,
    recall_against,
    settings,
    tune,
)

FACTORIES = ["Flat", "SQ8", "IVF8,Flat", "PQ4"]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """600 documents in twelve clusters, of unit length."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((12, 16))
    rows = centres[draw.integers(12, size=600)] + 0.5 * draw.standard_normal((600, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def queries(vectors) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal((80, 16)).astype(np.float32)
    rows = vectors[:80] + 0.1 * noise
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_byte_budget_leaves_out_what_is_bigger(vectors, queries):
    tuned = tune(vectors, queries, Target(0.8, bytes=40), factories=FACTORIES)
    assert tuned.chosen.factory == "SQ8" and tuned.chosen.bytes < 40
    index = build(tuned.spec, vectors)
    order = np.random.default_rng(0).permutation(80)
    checking = np.sort(order[40:])
    recall = recall_against(build(IndexSpec(), vectors), queries)
    assert recall(hits(index, queries[checking]), checking).mean() == pytest.approx(tuned.checked)


def test_with_limited_time_the_smallest_is_chosen(vectors, queries):
    tuned = tune(vectors, queries, Target(0.8, milliseconds=1000), factories=FACTORIES)
    assert tuned.chosen.bytes == min(point.bytes for point in tuned.points if point.meets)


def test_exact_search_keeps_everything(vectors, queries):
    tuned = tune(vectors, queries, Target(1.0), factories=["Flat"])
    assert tuned.checked == tuned.chosen.quality == 1
    assert tuned.spec == IndexSpec()


def test_a_setting_that_only_costs_more_is_not_tried(vectors, queries):
    tuned = tune(vectors, queries, Target(0.5), factories=["IVF8,Flat"])
    tried = [point.search for point in tuned.points]
    assert tried == [f"nprobe={2**n}" for n in range(len(tried))]
    assert [point.meets for point in tuned.points] == [False] * (len(tried) - 1) + [True]


def test_every_parameter_of_a_refined_index_is_a_setting(vectors):
    found = settings(build(IndexSpec(factory="IVF8,SQ8,RFlat"), vectors))
    assert set(found[0]) == {"nprobe", "k_factor_rf"}
    assert found[0] == {"nprobe": 1, "k_factor_rf": 1}
    assert len({tuple(setting.items()) for setting in found}) == len(found)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(0.99), r"no specification keeps 0\.99: the best, PQ4.*lower the target"),
        (Target(0.2, bytes=2), r"nothing that keeps 0\.2 is within the budget: the smallest, PQ4"),
        (Target(0.2, milliseconds=1e-9), "within the budget.*raise the budget"),
    ],
)
def test_a_target_that_nothing_meets_is_refused_with_what_came_nearest(
    vectors, queries, target, message
):
    with pytest.raises(InputError, match=message):
        tune(vectors, queries, target, factories=["PQ4"])


def test_a_factory_that_does_not_fit_is_skipped_and_said(vectors, queries):
    tuned = tune(vectors, queries, Target(0.9), factories=["PQ5", "Flat"])
    assert "5 codes do not divide" in tuned.skipped["PQ5"]
    with pytest.raises(InputError, match=r"no specification could be built.*do not divide"):
        tune(vectors, queries, Target(0.9), factories=["PQ5"])


def test_too_few_queries_are_refused(vectors, queries):
    with pytest.raises(InputError, match=r"39 queries.*at least 40"):
        tune(vectors, queries[:39], Target(0.9))


def test_other_qualities_can_be_kept(vectors, queries):
    tuned = tune(
        vectors,
        queries,
        Target(-0.1),
        quality=lambda found, rows: -np.ones(len(rows)) * (found[:, 0] < 0),
        factories=["SQ8"],
    )
    assert tuned.checked == 0


def test_a_mean_that_may_be_below_by_chance_does_not_meet():
    draw = np.random.default_rng(0)
    means = [lower_bound(draw.random(50)) > 0.5 for _ in range(2000)]
    assert np.mean(means) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("documents", [1, 39, 500, 15_809, 10**6, 10**8])
def test_candidates_can_be_trained_on_the_documents_that_there_are(documents):
    for factory in candidates(384, documents):
        cells = [int(part[3:]) for part in factory.split(",") if part.startswith("IVF")]
        assert all(1 <= count <= max(1, documents // 39) for count in cells)


def test_of_equal_points_the_first_is_chosen():
    one, two = (Point(name, "", 1.0, 1.0, 8.0, 0.0, True) for name in ("Flat", "SQ8"))
    assert choose([one, two], Target(0.5)) is one
    assert choose([], Target(0.5)) is None
