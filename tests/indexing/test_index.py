from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from retrieval_kd.cli.app import app
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_sealed, sealed, write_json
from retrieval_kd.indexing import build
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.snippets import snippets
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.retrieval.dense import dense_run
from retrieval_kd.students.asymmetric import make_asymmetric
from tests.tiny_models import write_encoder


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(tiny_collection)


@pytest.fixture(params=["cosine", "dot"])
def model_spec(request: pytest.FixtureRequest, tiny_encoder: Path, tiny_dot_encoder: Path) -> str:
    return str(tiny_encoder if request.param == "cosine" else tiny_dot_encoder)


def test_flat_equals_exact_search(collection: Collection, model_spec: str, tmp_path: Path) -> None:
    index = build_index(collection, model_spec, IndexSpec(), tmp_path)
    queries = collection.query_texts("test")
    found = index.search_run(queries, 60)
    exact = dense_run(collection, queries, model_spec, 60)
    for query, scores in exact.results.items():
        assert found.results[query] == pytest.approx(scores, rel=1e-5)
        assert next(iter(found.results[query])) == next(iter(scores))
    assert index.manifest["metric"] == ("dot" if "dot" in model_spec else "cosine")


def test_an_index_of_the_base_is_an_asymmetric_students_too(
    collection: Collection, model_spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is searched as it is, and kept; what it is asked with last is what it names."""
    base = build_index(collection, model_spec, IndexSpec(), tmp_path / "ix")
    student, before = str(tmp_path / "student"), (tmp_path / "ix" / "index.faiss").stat()
    make_asymmetric(model_spec, collection.documents).save(student)
    queries = collection.query_texts("test")
    monkeypatch.setattr(build, "_write_dense", None)  # must not be called
    expected = dense_run(collection, queries, student, 5)
    opened = Index.open(tmp_path / "ix", student)
    assert opened.model_spec == student and opened.manifest["model"] == base.manifest["model"]
    kept = build_index(collection, student, IndexSpec(), tmp_path / "ix")
    for index in (opened, kept, Index.open(tmp_path / "ix")):
        found = index.search_run(queries, 5)
        for query, scores in expected.results.items():
            assert found.results[query] == pytest.approx(scores, rel=1e-4)
    assert (tmp_path / "ix" / "index.faiss").stat() == before
    again = build_index(collection, model_spec, IndexSpec(), tmp_path / "ix")
    assert again.search_run(queries, 5).results == base.search_run(queries, 5).results
    assert Index.open(tmp_path / "ix").manifest["model"] == base.manifest["model"]


@pytest.mark.parametrize(
    "factory", ["Flat", "HNSW8", "IVF4,Flat", "IVF4,PQ4x4", "SQ8", "PQ4x4,RFlat"]
)
def test_plain_faiss_finds_the_same_neighbours(
    factory: str, collection: Collection, tiny_encoder: Path, tmp_path: Path
) -> None:
    search = "nprobe=2" if "IVF" in factory else "efSearch=40" if "HNSW" in factory else ""
    spec = IndexSpec(factory=factory, search=search)
    built = build_index(collection, str(tiny_encoder), spec, tmp_path)
    texts = list(collection.query_texts("test").values())
    opened = Index.open(tmp_path, str(tiny_encoder))
    hits = opened.search(texts, 7)
    assert hits == built.search(texts, 7)

    plain = faiss.read_index(str(tmp_path / "index.faiss"))
    ids = list(collection.documents.ids())
    scores, rows = plain.search(opened.encode(texts), 7)
    for query_hits, query_scores, query_rows in zip(hits, scores, rows, strict=True):
        assert {id for id, _ in query_hits} == {ids[row] for row in query_rows if row >= 0}
        assert [score for _, score in query_hits] == [s for s in query_scores if s > -1e30]


def test_a_finished_index_is_not_built_again_unless_something_changed(
    collection: Collection, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(collection, str(tiny_encoder), IndexSpec(), tmp_path)
    before = (tmp_path / "index.faiss").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(build, "load_retriever", lambda *a, **k: pytest.fail("built again"))
        build_index(collection, str(tiny_encoder), IndexSpec(), tmp_path)
    assert (tmp_path / "index.faiss").stat().st_mtime_ns == before

    build_index(collection, str(tiny_encoder), IndexSpec(factory="SQ8"), tmp_path)
    assert Index.open(tmp_path).manifest["spec"]["factory"] == "SQ8"

    (tmp_path / "index.faiss").write_bytes(b"damaged")
    build_index(collection, str(tiny_encoder), IndexSpec(factory="SQ8"), tmp_path)
    assert len(Index.open(tmp_path)) == 60


def test_the_command_says_which_index_it_replaces(
    tiny_collection: Path, tiny_encoder: Path, tiny_dot_encoder: Path, tmp_path: Path
) -> None:
    def printed(model: Path) -> str:
        where = ["--collection", str(tiny_collection), "--out", str(tmp_path / "index")]
        result = CliRunner().invoke(app, ["index", *where, "--model", str(model)])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "replaces" not in printed(tiny_encoder)
    assert "replaces" not in printed(tiny_encoder)  # it is the same one
    output = printed(tiny_dot_encoder)
    assert f"replaces the index of 60 documents by {tiny_encoder}\n" in output


def test_the_wrong_model_is_an_error(
    collection: Collection, tiny_encoder: Path, tiny_dot_encoder: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_encoder, tmp_path / "model")
    build_index(collection, str(model), IndexSpec(), tmp_path / "index")
    Index.open(tmp_path / "index", str(tiny_encoder))  # the same weights elsewhere are the same
    with pytest.raises(InputError, match=r"was built with model .* their vectors do not compare"):
        Index.open(tmp_path / "index", str(tiny_dot_encoder))
    write_encoder(model, seed=5)
    with pytest.raises(InputError, match="its files have changed since"):
        Index.open(tmp_path / "index").search(["sparrow"])


def _cut(folder: Path) -> None:
    path = folder / "index.faiss"
    path.write_bytes(path.read_bytes()[:-1])


def _flip(folder: Path) -> None:
    data = bytearray((folder / "index.faiss").read_bytes())
    data[-1] ^= 1
    (folder / "index.faiss").write_bytes(data)


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    write_json(path, sealed({**read_sealed(path), **changes}))


def _change(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"count": 60', '"count": 61'))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (_cut, "index.faiss: size differs"),
        (_flip, "index.faiss: digest differs"),
        (lambda folder: (folder / "ids.arrow").unlink(), "ids.arrow: the index lacks this file"),
        (lambda folder: (folder / "manifest.json").unlink(), "no finished index here"),
        (_change, "manifest.json: changed after it was written"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "not a JSON file"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "but with a list"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "not the manifest of"),
        (lambda folder: _edit(folder, count=61), "documents or dimensions differs"),
        (lambda folder: _edit(folder, dimensions=16), "documents or dimensions differs"),
    ],
)
def test_files_that_differ_from_the_manifest_are_an_error(
    damage: Any, problem: str, collection: Collection, tiny_encoder: Path, tmp_path: Path
) -> None:
    build_index(collection, str(tiny_encoder), IndexSpec(), tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=problem):
        Index.open(tmp_path)
    build_index(collection, str(tiny_encoder), IndexSpec(), tmp_path)
    assert len(Index.open(tmp_path)) == 60


def test_an_index_without_seals_still_opens(
    collection: Collection, tiny_encoder: Path, tmp_path: Path
) -> None:
    build_index(collection, str(tiny_encoder), IndexSpec(), tmp_path)
    path = tmp_path / "manifest.json"
    write_json(path, read_sealed(path))  # as earlier versions wrote it
    assert len(Index.open(tmp_path)) == 60


@pytest.mark.parametrize("name", ["thesis.txt", "manifest.json"])
def test_no_index_is_built_in_a_folder_of_other_files(
    name: str, collection: Collection, tiny_encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text('{"name": "web app"}')
    with pytest.raises(InputError, match="something other than an index"):
        build_index(collection, str(tiny_encoder), IndexSpec(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_cosine_scales_a_dot_product_model_and_dot_does_not_fit_a_cosine_one(
    collection: Collection, tiny_encoder: Path, tiny_dot_encoder: Path, tmp_path: Path
) -> None:
    index = build_index(collection, str(tiny_dot_encoder), IndexSpec(metric="cosine"), tmp_path)
    stored = index.vectors.index.reconstruct_n(0, 60)
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)
    assert max(score for _, score in index.search(["sparrow nest"], 60)[0]) <= 1.00001
    with pytest.raises(InputError, match="metric dot does not fit"):
        build_index(collection, str(tiny_encoder), IndexSpec(metric="dot"), tmp_path / "dot")


def test_the_indexed_collection_is_opened_for_titles_and_checked(
    collection: Collection, tiny_encoder: Path, tmp_path: Path
) -> None:
    build_index(collection, str(tiny_encoder), IndexSpec(), tmp_path)
    index = Index.open(tmp_path)
    shown = snippets(index.collection().documents, index.search(["sail mast"], 3)[0], "sail mast")
    assert [hit.rank for hit in shown] == [1, 2, 3] and all(hit.title for hit in shown)
    recorded = index.manifest["collection"]
    _edit(tmp_path, collection={**recorded, "documents_digest": "another"})
    with pytest.raises(InputError, match="changed after this index was built"):
        Index.open(tmp_path).collection()


def test_timing_and_self_matches(
    collection: Collection, tiny_encoder: Path, tmp_path: Path
) -> None:
    index = build_index(collection, str(tiny_encoder), IndexSpec(), tmp_path)
    timing = index.measure(["sparrow", "violin chord", "rook"])
    assert timing.queries == 3 and timing.queries_per_second > 0
    assert 0 < timing.encode_ms_p50 <= timing.encode_ms_p95
    assert timing.index_bytes == (tmp_path / "index.faiss").stat().st_size
    queries = {"chess2": collection.documents["chess2"].full}
    assert "chess2" not in index.search_run(queries, 60).results["chess2"]
    assert "chess2" in index.search_run(queries, 60, exclude_self=False).results["chess2"]
