from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.indexing.topk import top_k

IDS = [f"d{i}" for i in range(30)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 35))
def test_top_k_is_the_head_of_a_full_sort_by_score_and_id(scores: list[int], depth: int) -> None:
    found = top_k(np.array(scores, np.float32), depth, IDS.__getitem__)
    everything = sorted(zip(scores, IDS, strict=False), reverse=True)
    assert list(found.items()) == [(id, score) for score, id in everything[:depth]]


@pytest.mark.parametrize("depth", [1, 3, 29, 30, 31])
def test_an_excluded_document_makes_room_for_the_next(depth: int) -> None:
    scores = np.arange(30, 0, -1, dtype=np.float32)
    found = top_k(scores, depth, IDS.__getitem__, exclude="d0")
    assert list(found) == IDS[1 : depth + 1]


def test_only_documents_that_can_be_in_the_result_are_looked_up() -> None:
    looked_up: list[int] = []

    def id_at(position: int) -> str:
        looked_up.append(position)
        return IDS[position]

    top_k(np.arange(30, dtype=np.float32), 2, id_at)
    assert sorted(looked_up) == [28, 29]
