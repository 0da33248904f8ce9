from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.retrieval import dense
from retrieval_kd.retrieval.dense import dense_run, dense_scores, search_vectors


@pytest.fixture
def collection(tiny_collection: Path) -> Collection:
    return open_collection(tiny_collection)


@pytest.fixture(params=["cosine", "dot"])
def model_spec(request: pytest.FixtureRequest, tiny_encoder: Path, tiny_dot_encoder: Path) -> str:
    return str(tiny_encoder if request.param == "cosine" else tiny_dot_encoder)


def names(count: int) -> list[str]:
    rng = np.random.default_rng(3)
    return [f"d{i:05d}" for i in rng.permutation(count)]


@pytest.mark.parametrize("chunk", [7, 100, 1000])
def test_search_equals_brute_force(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "CHUNK", chunk)
    monkeypatch.setattr(dense, "QUERIES", 4)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 16)).astype(np.float32)
    queries = rng.normal(size=(9, 16)).astype(np.float32)
    ids = names(300)
    found = search_vectors(queries, vectors, 10, ids.__getitem__)
    for query, ranking in zip(queries, found, strict=True):
        scores = vectors.astype(np.float64) @ query.astype(np.float64)
        best = np.argsort(-scores)[:10]
        assert list(ranking) == [ids[i] for i in best]
        np.testing.assert_allclose(list(ranking.values()), scores[best], rtol=1e-6)


@pytest.mark.parametrize("depth", [1, 5, 40])
def test_copies_tie_wherever_they_stand(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "CHUNK", 33)
    rng = np.random.default_rng(1)
    distinct = rng.normal(size=(3, 24)).astype(np.float32)
    vectors = distinct[rng.integers(0, 3, size=500)]
    ids = names(500)
    [ranking] = search_vectors(distinct[:1], vectors, depth, ids.__getitem__)
    copies = sorted(
        (id for id, vector in zip(ids, vectors, strict=True) if (vector == distinct[0]).all()),
        reverse=True,
    )
    assert list(ranking) == copies[:depth]
    assert len(set(ranking.values())) == 1


def test_a_constant_model_ranks_by_document_id() -> None:
    ids = names(200)
    vectors = np.ones((200, 8), np.float32)
    [ranking] = search_vectors(vectors[:1], vectors, 5, ids.__getitem__, exclude=["d00198"])
    assert list(ranking) == ["d00199", "d00197", "d00196", "d00195", "d00194"]


def test_pair_scores_equal_the_scores_of_the_run(collection: Collection, model_spec: str) -> None:
    queries = collection.query_texts("test")
    run = dense_run(collection, queries, model_spec, 20)
    pairs = {query: list(found) for query, found in run.results.items()}
    again = dense_scores(collection, queries, pairs, model_spec)
    assert again.keys() == run.results.keys()
    for query, scores in again.items():
        # bfloat16 models may give a query another vector in another batch; these batches are equal
        assert scores == run.results[query]


def test_two_runs_are_equal_and_every_document_is_ranked(
    collection: Collection, model_spec: str
) -> None:
    queries = collection.query_texts("dev")
    first = dense_run(collection, queries, model_spec, 1000, name="a")
    assert first == dense_run(collection, queries, model_spec, 1000, name="a")
    assert {len(found) for found in first.results.values()} == {60}


def test_self_matches_are_left_out_unless_requested(
    collection: Collection, model_spec: str
) -> None:
    queries = {"ships3": collection.documents["ships3"].full}
    found = dense_run(collection, queries, model_spec, 5).results["ships3"]
    assert len(found) == 5 and "ships3" not in found
    kept = dense_run(collection, queries, model_spec, 60, exclude_self=False).results["ships3"]
    assert len(kept) == 60
