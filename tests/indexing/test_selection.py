from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrieval_kd.indexing.dense import from_factory
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.selection import Selection, without

ROWS, WIDTH = 600, 16
EXACT = ("Flat", "SQ8", "IVF8,Flat", "IVF8,PQ4x4", "OPQ4,IVF8,PQ4x4", "PQ4x4", "RaBitQ")
REFINED = ("OPQ4,IVF8,PQ4x4fs,Refine(SQ8)", "IVF8,RaBitQ,Refine(SQ8)", "PQ4x4,RFlat",
           "RaBitQfs,Refine(SQ8)", "First8,L2norm,SQ8,Refine(SQ8)", "First8,HNSW8,RFlat",
           "First8,IVF8,Flat,RFlat")  # fmt: skip
FACTORIES = (*EXACT, *REFINED, "HNSW8", "PCA8,HNSW8", "PQ4x4fs")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def filled(factory: str, vectors: np.ndarray) -> Any:
    """An index that was trained on a part, written, read and added to."""
    made = from_factory(factory, WIDTH)
    made.train(vectors[:500])
    made.add(vectors[:500])
    read = faiss.deserialize_index(faiss.serialize_index(made))
    read.add(vectors[500:])
    return read


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_list_is_full_and_shows_no_deleted_row(
    factory: str, share: float, vectors: np.ndarray
) -> None:
    index = filled(factory, vectors)
    deleted = np.random.default_rng(1).permutation(ROWS)[: int(share * ROWS)]
    depth = min(20, ROWS - len(deleted))
    scores, found = Selection(index, np.sort(deleted)).search(vectors[deleted[:9]], depth)
    assert found.shape == (9, depth) and (found >= 0).all()
    assert not np.isin(found, deleted).any()
    assert all(len({*row}) == depth for row in found.tolist())
    assert (np.diff(scores, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_index_without_the_deleted_rows_finds_what_one_that_hides_them_finds(
    factory: str, vectors: np.ndarray
) -> None:
    index = filled(factory, vectors)
    live = np.random.default_rng(2).random(ROWS) < 0.6
    rows = np.flatnonzero(live)
    scores, _ = Selection(index, np.flatnonzero(~live)).search(vectors[:5], 10)
    without(index, live)
    assert index.ntotal == len(rows)
    if factory in EXACT:
        same, _ = index.search(vectors[:5], 10)  # with the same cells and codes
        np.testing.assert_allclose(same, scores, atol=1e-6)
    _, positions = index.search(vectors[rows[:5]], 10)
    assert (positions >= 0).all() and positions.max() < len(rows)
    index.add(vectors[:3])  # it is still an index that can be added to
    assert index.ntotal == len(rows) + 3


@pytest.mark.parametrize(
    ("factory", "parameters", "searches"),
    [
        ("Flat", "", 1),
        ("IVF8,Flat", "nprobe=8", 1),
        ("IVF8,Flat", "nprobe=2", 2),
        ("OPQ4,IVF8,PQ4x4fs,Refine(SQ8)", "nprobe=8", 1),
        ("HNSW8", "efSearch=600", 1),
        ("HNSW8", "efSearch=100", 2),
    ],
)
def test_what_looked_at_everything_is_not_searched_again(
    factory: str,
    parameters: str,
    searches: int,
    vectors: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = filled(factory, vectors)
    space: Any = faiss.ParameterSpace()
    space.set_index_parameters(index, parameters)
    selection, made = Selection(index, np.arange(590)), []
    real = selection._selected

    def search(queries: np.ndarray, depth: int, wider: int) -> Any:
        made.append(wider)
        return real(queries, depth, wider)

    monkeypatch.setattr(selection, "_selected", search)
    selection.search(vectors[:3], 11)  # one more than there are
    assert len(made) == searches
