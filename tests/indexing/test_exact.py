"""Exact indexes of sparse and multi-vector models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from transformers import BertForMaskedLM

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec, load_spec, spec_for
from retrieval_kd.models import encode as shards
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.students.make import make_student

FILES = {"sparse": "sparse.yaml", "multi_vector": "multivector.yaml"}
PLAIN: dict[str, Any] = {"sparse": SparseEncoder, "multi_vector": MultiVectorEncoder}


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(tiny_collection)


@pytest.fixture(scope="module", params=["sparse", "multi_vector"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exact") / kind
    make_student(str(tiny_encoder), kind, [0, 3]).save(str(folder))
    return folder


@pytest.fixture(scope="module")
def spec(kind: str) -> IndexSpec:
    return load_spec(f"indexes/{FILES[kind]}")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 25)  # 60 documents: three shards


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("RETRIEVAL_KD_DTYPE", "float32")
        fast_dtype.cache_clear()
        yield
    fast_dtype.cache_clear()


def test_an_index_ranks_as_plain_sentence_transformers_does(
    kind, model, spec, collection, tmp_path, small_shards, float32
):
    index = build_index(collection, str(model), spec, tmp_path)
    plain = PLAIN[kind](str(model), device="cpu")
    queries = collection.query_texts("test")
    documents = [document.full for document in collection.documents.iterate(0, 60)]
    scores = plain.similarity(
        plain.encode_query(list(queries.values())), plain.encode_document(documents)
    )
    found = index.search_run(queries, 60, exclude_self=False).results
    for query, row in zip(queries, scores.numpy(), strict=True):
        expected = {id: float(s) for id, s in zip(collection.documents.ids(), row, strict=True)}
        assert found[query] == pytest.approx(
            {id: expected[id] for id in found[query]}, abs=0.01 if kind == "multi_vector" else 1e-4
        )
        missing = set(expected) - set(found[query])
        assert kind == "sparse" or not missing
        assert all(expected[id] == 0 for id in missing)  # shares no word with the query
        assert list(found[query].values()) == sorted(found[query].values(), reverse=True)


def test_an_index_answers_an_inference_free_models_queries_without_a_transformer(
    tiny_encoder, collection, tmp_path, float32, monkeypatch
):
    made = make_student(
        str(tiny_encoder), "sparse", [0], documents=collection.documents, query="idf"
    )
    made.save(str(tmp_path / "model"))
    index = build_index(collection, str(tmp_path / "model"), spec_for("sparse"), tmp_path / "index")
    plain = SparseEncoder(str(tmp_path / "model"), device="cpu")
    texts = [document.full for document in collection.documents.iterate(0, 60)]
    documents = plain.encode_document(texts).to_dense()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a transformer ran")

    monkeypatch.setattr(BertForMaskedLM, "forward", refuse)
    queries = [*collection.query_texts("test").values(), "", "[SEP] nothing of this"]
    scores = plain.encode_query(queries).to_dense() @ documents.T  # (Q, n)
    ids = list(collection.documents.ids())
    for row, hits in zip(scores.numpy(), index.search(queries, 60), strict=True):
        expected = {id: float(s) for id, s in zip(ids, row, strict=True) if s > 0}
        assert dict(hits) == pytest.approx(expected, abs=1e-4)
    assert index.manifest["dimensions"] == documents.shape[1]


def test_an_index_is_opened_searched_timed_and_measured_in_bytes(
    kind, model, spec, collection, tmp_path
):
    built = build_index(collection, str(model), spec, tmp_path)
    opened = Index.open(tmp_path)
    queries = list(collection.query_texts("test").values())[:3]
    assert opened.search(queries, 5) == built.search(queries, 5)
    assert len(opened) == 60 and opened.manifest["dimensions"] == opened.vectors.dimensions
    files = opened.manifest["files"]
    assert {name: file["bytes"] for name, file in files.items()} == {
        name: (tmp_path / name).stat().st_size for name in files
    }
    timing = opened.measure(queries)
    assert timing.index_bytes == sum(f["bytes"] for n, f in files.items() if n != "ids.arrow")
    kept = {path.name for path in tmp_path.iterdir() if path.name != ".lock"}
    assert kept == {"manifest.json", *files}
    for name in files:
        if name.endswith(".npy"):
            np.load(tmp_path / name, allow_pickle=False)


def test_a_killed_build_continues_after_its_last_whole_shard(
    kind, model, spec, collection, tmp_path, small_shards, monkeypatch
):
    build_index(collection, str(model), spec, tmp_path / "whole")
    written = []

    def save_two(path: Path, **arrays: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        real(path, **arrays)

    real = shards.save_arrays
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, "save_arrays", save_two)
        build_index(collection, str(model), spec, tmp_path / "killed")
    with pytest.raises(InputError, match="no finished index here"):
        Index.open(tmp_path / "killed")
    stamps = [path.stat().st_mtime_ns for path in written]
    encoded = []
    with monkeypatch.context() as patch:
        patch.setattr(
            shards,
            "save_arrays",
            lambda path, **arrays: (encoded.append(path), real(path, **arrays)),
        )
        build_index(collection, str(model), spec, tmp_path / "killed")
    assert len(stamps) == 2 and len(encoded) == 1
    for name in Index.open(tmp_path / "whole").manifest["files"]:
        whole, killed = ((tmp_path / home / name).read_bytes() for home in ("whole", "killed"))
        assert whole == killed


def test_the_wrong_model_and_the_wrong_specification_are_errors(
    kind, model, spec, collection, tiny_encoder, tmp_path
):
    build_index(collection, str(model), spec, tmp_path / "index")
    other = make_student(str(tiny_encoder), kind, [0, 2])
    other.save(str(tmp_path / "other"))
    with pytest.raises(InputError, match="their vectors do not compare"):
        Index.open(tmp_path / "index", str(tmp_path / "other"))
    with pytest.raises(InputError, match=f"is a {kind} model.*{FILES[kind]}"):
        build_index(collection, str(model), IndexSpec(), tmp_path / "flat")
    with pytest.raises(InputError, match=r"is a dense model.*flat\.yaml"):
        build_index(collection, str(tiny_encoder), spec, tmp_path / "dense")
    with pytest.raises(InputError, match="this search is exact"):
        Index.open(tmp_path / "index", search="nprobe=2")
    damaged = shutil.copytree(tmp_path / "index", tmp_path / "damaged")
    array = next(damaged.glob("*.npy"))
    array.write_bytes(array.read_bytes()[:-1])
    with pytest.raises(InputError, match="size differs"):
        Index.open(damaged)


def test_retrieval_by_name_uses_the_same_index(kind, model, collection, tmp_path):
    queries = collection.query_texts("test")
    run = retrieve(collection, queries, str(model), 7)
    index = build_index(collection, str(model), spec_for(kind), tmp_path)
    assert run.results == index.search_run(queries, 7).results


def test_an_exact_index_has_no_settings():
    with pytest.raises(ValueError, match="kind sparse has no factory"):
        IndexSpec(kind="sparse", factory="Flat")


def test_a_sparse_model_that_does_not_say_its_width_is_indexed(
    tiny_encoder, collection, tmp_path, float32
):
    """Sentence Transformers then takes the width of the states, and such an index is too narrow."""
    folder = tmp_path / "sparse"
    make_student(str(tiny_encoder), "sparse", [0, 3]).save(str(folder))
    [config] = folder.glob("*SpladePooling/config.json")
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({k: v for k, v in settings.items() if k != "embedding_dimension"}))
    index = build_index(collection, str(folder), spec_for("sparse"), tmp_path / "index")
    whole = SparseEncoder(str(folder), device="cpu").encode_query(["birds"]).shape[1]
    assert index.manifest["dimensions"] == whole > 32
    assert index.search(["the birds of the sea"], 3)[0]
