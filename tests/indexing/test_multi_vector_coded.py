"""The small multi-vector index: end to end, killed, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.indexing import multi_vector_coded as coded
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.multi_vector_coded import CodedTokens
from retrieval_kd.indexing.spec import IndexSpec, load_spec
from retrieval_kd.models import encode as shards
from retrieval_kd.models.vectors import maxsim_scores
from retrieval_kd.students.make import make_student

SMALL = IndexSpec(kind="multi_vector", bits=4, pool=2, search="candidates=20,nprobe=4")


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(tiny_collection)


@pytest.fixture(scope="module")
def model(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("coded") / "model"
    make_student(str(tiny_encoder), "multi_vector", [0, 3]).save(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def index(collection: Collection, model: str, tmp_path_factory: pytest.TempPathFactory) -> Index:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", 25)  # 60 documents: three shards
        return build_index(collection, model, SMALL, tmp_path_factory.mktemp("index"))


def queries_of(collection: Collection) -> list[str]:
    return list(collection.query_texts("test").values())


def decoded(index: Index) -> list[np.ndarray]:
    """All documents' tokens as the index's codes have them."""
    vectors: Any = index.vectors
    tokens = vectors.code.decode(vectors.cells[:], vectors.codes[:])
    return np.split(tokens, vectors.offsets[1:-1])


def test_with_all_documents_as_candidates_the_ranking_is_that_of_the_decoded_vectors(
    index, collection
):
    opened = Index.open(index.folder, search="candidates=60")
    queries = opened.encode(queries_of(collection))
    expected = maxsim_scores(queries, decoded(opened))
    for (positions, scores), row in zip(opened.vectors.search(queries, 5), expected, strict=True):
        assert positions.tolist() == list(range(60))
        np.testing.assert_allclose(scores, row, rtol=1e-4, atol=1e-4)


def test_candidates_have_the_scores_that_all_documents_have(index, collection):
    texts = queries_of(collection)
    everything = Index.open(index.folder, search="candidates=60").search(texts, 60)
    found = index.search(texts, 10)
    for hits, scores in zip(found, map(dict, everything), strict=True):
        assert len(hits) == 10
        assert dict(hits) == pytest.approx({id: scores[id] for id, _ in hits}, abs=1e-4)
    best = [hits[0][0] in dict(everything[at][:3]) for at, hits in enumerate(found)]
    assert np.mean(best) > 0.8
    assert all(len(hits) > 20 for hits in index.search(texts, 50))  # the depth is more than 20


def test_eight_bits_give_nearly_the_exact_scores(collection, model, tmp_path):
    exact = build_index(collection, model, IndexSpec(kind="multi_vector"), tmp_path / "exact")
    spec = IndexSpec(kind="multi_vector", bits=8, search="candidates=60")
    near = build_index(collection, model, spec, tmp_path / "near")
    texts = queries_of(collection)
    for left, right in zip(exact.search(texts, 60), near.search(texts, 60), strict=True):
        assert dict(left) == pytest.approx(dict(right), rel=0.01)


def test_the_manifest_has_all_parameters_and_what_was_trained(index):
    manifest = Index.open(index.folder).manifest
    assert manifest["spec"] == {
        "kind": "multi_vector", "bits": 4, "pool": 2.0, "seed": 0,
        "search": "candidates=20,nprobe=4",
    }  # fmt: skip
    assert manifest["centroids"] == len(index.vectors.code.centroids)
    assert manifest["trained_on_tokens"] == len(index.vectors.cells)
    assert index.vectors.codes.shape == (len(index.vectors.cells), 2 + 32 * 4 // 8)


def test_what_was_added_is_found_and_what_was_deleted_is_not(index, tmp_path):
    vectors, documents = CodedTokens(index.folder, index.manifest, None), decoded(index)
    shard = {"lengths": np.array([len(d) for d in documents[:3]]),
             "tokens": np.concatenate(documents[:3])}  # fmt: skip
    vectors.extend(shard)
    vectors.hide(np.array([0, 1, 2]))
    query = documents[1]
    [(positions, scores)] = vectors.search([query], 5)
    assert positions[scores.argmax()] == 61  # the copy of document 1
    assert not {0, 1, 2} & {*positions.tolist()} and len(positions) == 20 + 3
    vectors.rewrite(vectors.live, tmp_path)
    again = CodedTokens(tmp_path, index.manifest, "candidates=60")
    [(positions, after)] = again.search([query], 5)
    [(_, before)] = vectors.search([query], 60)
    assert len(positions) == 60
    np.testing.assert_allclose(after, before, rtol=1e-5)  # of another block, so rounded otherwise


def test_search_parameters_are_replaced_one_by_one(index):
    opened = Index.open(index.folder, search="nprobe=9")
    assert (opened.vectors.candidates, opened.vectors.nprobe) == (20, 9)


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ("efSearch=9", "'efSearch=9': a multi-vector index has candidates"),
        ("candidates=1.5", "parameter 'candidates=1.5': give an integer"),
        ("candidates=0", "a number of 1 or more"),
        ("candidates=61", "61 candidates are more than the 60 documents"),
    ],
)
def test_search_parameters_that_do_not_fit_are_refused(index, search, problem):
    with pytest.raises(InputError, match=problem):
        Index.open(index.folder, search=search)


def test_the_command_line_replaces_search_parameters(index, command):
    code, said = command("search", "--index", index.folder, "wing", "--search", "candidates=30")
    assert code == 0 and said.count("[") == 10, said
    code, said = command("search", "--index", index.folder, "wing", "--search", "efSearch=9")
    assert code != 0 and "candidates=…, nprobe=…" in " ".join(said.split())


class Killed(BaseException):
    """What ends a build in these tests."""


@pytest.mark.parametrize("saves", [1, 3, 5, 7])  # encoding, training, coding, the index itself
def test_a_killed_build_continues_and_ends_in_the_same_bytes(
    saves, index, collection, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(shards, "SHARD", 25)
    real, written = shards.save_arrays, []

    def save(path: Path, **arrays: np.ndarray) -> None:
        if len(written) == saves:
            raise Killed
        written.append(path)
        real(path, **arrays)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for module in (shards, coded):
            patch.setattr(module, "save_arrays", save)
        build_index(collection, model, SMALL, tmp_path)
    before, again = set(written), []

    def note(path: Path, **arrays: np.ndarray) -> None:
        again.append(path)
        real(path, **arrays)

    with monkeypatch.context() as patch:
        for module in (shards, coded):
            patch.setattr(module, "save_arrays", note)
        build_index(collection, model, SMALL, tmp_path)
    assert not set(again) & before and len(again) + len(before) == 8
    for name, file in index.manifest["files"].items():
        assert (tmp_path / name).read_bytes() == (index.folder / name).read_bytes(), name
        assert file["bytes"] == (tmp_path / name).stat().st_size
    kept = {path.name for path in tmp_path.iterdir()} - {".lock", "manifest.json"}
    assert kept == set(index.manifest["files"])


def test_misfits_are_refused_before_anything_is_encoded(collection, model, tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was encoded")

    monkeypatch.setattr(coded, "encode_shards", refuse)
    small = load_spec("indexes/multivector-small.yaml")
    with pytest.raises(InputError, match="256 candidates are more than the 60 documents"):
        build_index(collection, model, small, tmp_path)
    with pytest.raises(InputError, match="30 dimensions of 2 bits do not fill whole bytes"):
        coded._check_width(30, 2)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"bits": 2}, "bits is for kind: multi_vector"),
        ({"factory": "SQ8", "pool": 2}, "pool is for kind: multi_vector"),
        ({"kind": "sparse", "bits": 2}, "kind sparse has no bits: it is exact"),
        ({"kind": "multi_vector", "bits": 3}, "Input should be 8, 4, 2 or 1"),
        ({"kind": "multi_vector", "bits": 2, "pool": 0}, "greater than or equal to 1"),
        ({"kind": "multi_vector", "bits": 2, "pool": 999}, "less than or equal to 64"),
        ({"kind": "multi_vector", "pool": 2}, "pool needs bits: 8, 4, 2 or 1"),
        ({"kind": "multi_vector", "search": "nprobe=2"}, "search needs bits"),
        ({"kind": "multi_vector", "factory": "Flat"}, "has no factory: it is exact"),
        ({"kind": "multi_vector", "bits": 2, "factory": "Flat"}, "has no factory"),
        ({"kind": "multi_vector", "bits": 2, "search": "efSearch=2"}, "candidates=…, nprobe=…"),
        ({"kind": "multi_vector", "bits": 2, "search": "candidates=0"}, "1 or more"),
    ],
)
def test_settings_that_do_not_fit_the_kind_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        IndexSpec(**settings)


def test_the_specification_of_other_kinds_is_written_as_before():
    assert "bits" not in IndexSpec().as_dict() and "pool" not in IndexSpec().as_dict()
    assert IndexSpec(kind="multi_vector").as_dict() == {"kind": "multi_vector"}


@pytest.mark.parametrize("added", [0, 3])
def test_a_list_is_full_although_few_centroids_lead_to_documents_that_are_left(index, added):
    vectors = CodedTokens(index.folder, index.manifest, "candidates=1,nprobe=1")
    tokens = decoded(index)[:added]
    if added:
        lengths = np.array([len(each) for each in tokens])
        vectors.extend({"lengths": lengths, "tokens": np.concatenate(tokens)})
    query = decoded(index)[0][:1]  # one token: one list
    vectors.hide(np.arange(30))
    few = len(vectors.lists.best(query @ vectors.code.centroids.T, 1, 60, vectors.live[:60]))
    for depth in (10, 25 + added):
        [(positions, scores)] = vectors.search([query], depth)
        assert len({*positions.tolist()}) == len(scores) >= depth > few
        assert positions.min() >= 30


def test_candidates_are_compared_with_all_documents_and_only_where_they_are_given(index):
    manifest = {**index.manifest, "count": 10}  # fewer than the index's own 20 candidates
    assert CodedTokens(index.folder, manifest, "nprobe=3").nprobe == 3
    with pytest.raises(InputError, match="11 candidates are more than the 10 documents"):
        CodedTokens(index.folder, manifest, "nprobe=3,candidates=11")
    manifest = {**index.manifest, "count": 80}  # 20 of them in segments
    assert CodedTokens(index.folder, manifest, "candidates=70").candidates == 70
