"""MaxSim without padding is MaxSim."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.indexing.maxsim import rows_of, sum_of_best
from retrieval_kd.models.vectors import maxsim_scores


def random(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal((count, 8)).astype(np.float32)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 99))
def test_it_equals_the_padded_one(lengths: list[int], tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, documents = random(rng, tokens), [random(rng, length) for length in lengths]
    similar = np.concatenate(documents) @ query.T
    scores = sum_of_best(similar, np.array(lengths))
    np.testing.assert_allclose(scores, maxsim_scores([query], documents)[0], rtol=1e-4, atol=1e-4)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=10), st.data())
def test_rows_of_documents_are_those_of_their_slices(lengths: list[int], data: st.DataObject):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = data.draw(st.lists(st.integers(0, len(lengths) - 1)))
    rows, found = rows_of(np.array(positions, dtype=np.int64), offsets)
    expected = [row for at in positions for row in range(offsets[at], offsets[at + 1])]
    assert rows.tolist() == expected and found.tolist() == [lengths[at] for at in positions]
