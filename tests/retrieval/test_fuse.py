"""Fused lists: the formulas, what a list lacks, and properties of any lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.runs import Run, ranked
from retrieval_kd.retrieval.fuse import HOWS, K, floor, fuse_lists
from retrieval_kd.retrieval.retrieve import hybrid_run

IDS = st.sampled_from([f"d{n}" for n in range(12)])
LISTS = st.lists(
    st.dictionaries(IDS, st.floats(0.0625, 50), max_size=8).map(ranked),
    min_size=2,
    max_size=4,
)
how = st.sampled_from(HOWS)


def weights_for(lists, data):
    some = st.lists(st.sampled_from([0.0, 0.1, 0.4, 1.0]), min_size=len(lists), max_size=len(lists))
    return data.draw(some.filter(any))


def by_hand(lists, weights, how, floors):
    """The docstring's formula, document by document."""
    used = [(one, w, low) for one, w, low in zip(lists, weights, floors, strict=True) if w]
    union = {id for one, _, _ in used for id in one}
    scores = {}
    for id in union:
        total = 0.0
        for one, weight, low in used:
            filled = np.array([one.get(other, low) for other in union])
            x = one.get(id, low)
            if how == "ranks":
                value = 1 / (K + 1 + list(one).index(id)) if id in one else 0.0
            elif np.ptp(filled) < 1e-6:
                value = 0.0
            elif how == "min_max":
                value = (x - filled.min()) / np.ptp(filled)
            else:
                value = (x - filled.mean()) / filled.std()
            total += weight * value
        scores[id] = total
    return scores


@given(LISTS, how, st.data())
def test_the_sum_is_that_of_the_formula(lists, how, data):
    weights = weights_for(lists, data)
    floors = [floor(one, 9, True) for one in lists]
    fused = fuse_lists(lists, weights, how, floors)
    assert fused == pytest.approx(by_hand(lists, weights, how, floors), abs=1e-6)
    assert list(fused) == list(ranked(fused))


@given(LISTS, how, st.data())
def test_scales_and_the_order_of_the_lists_change_nothing(lists, how, data):
    weights = weights_for(lists, data)
    floors = [floor(one, 9, False) for one in lists]
    fused = fuse_lists(lists, weights, how, floors)
    scaled = [{id: 4 * x for id, x in one.items()} for one in lists]
    assert fuse_lists(scaled, weights, how, [4 * low for low in floors]) == pytest.approx(
        fused, abs=1e-9
    )
    turned = fuse_lists(lists[::-1], weights[::-1], how, floors[::-1])
    assert turned == pytest.approx(fused, abs=1e-9)


@given(LISTS, how, st.data())
def test_a_list_without_a_weight_adds_nothing(lists, how, data):
    weights = weights_for(lists, data)
    extra = data.draw(st.dictionaries(IDS, st.floats(0, 1), max_size=5))
    assert fuse_lists([*lists, extra], [*weights, 0.0], how) == fuse_lists(lists, weights, how)


@given(LISTS)
def test_equal_ranks_are_reciprocal_rank_fusion(lists):
    runs = [Run(str(at), {"q": one}) for at, one in enumerate(lists)]
    fused = fuse_lists(lists, [1.0] * len(lists), "ranks")
    assert fused == pytest.approx(hybrid_run(runs).results["q"])


def test_a_short_list_by_words_tells_that_other_documents_score_0():
    assert floor({"a": 5.0}, 100, by_words=True) == 0.0
    assert floor({"a": 5.0}, 1, by_words=True) == 5.0  # full: others may score as much
    assert floor({"a": 0.5}, 100, by_words=False) == 0.5
    assert floor({}, 100, by_words=False) == 0.0
    one_match, vectors = {"a": 5.0}, {"b": 0.9, "a": 0.8}
    fused = fuse_lists([one_match, vectors], [0.6, 0.4], floors=[0.0, 0.8])
    assert fused == pytest.approx({"a": 0.6, "b": 0.4})


@pytest.mark.parametrize("how", HOWS)
def test_nothing_found_is_an_empty_list(how):
    assert fuse_lists([{}, {}], [0.5, 0.5], how) == {}
    assert list(fuse_lists([{}, {"b": 1.0}], [0.5, 0.5], how)) == ["b"]
