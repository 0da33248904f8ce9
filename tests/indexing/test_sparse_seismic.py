"""The approximate index of a sparse model."""

from __future__ import annotations

import builtins
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse import random as random_rows

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.indexing import build, change, sparse_seismic
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.change import add_documents, compact_index, delete_documents
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.indexing.verify import verify_index
from retrieval_kd.students.make import make_student

ALL = "kept=1,centroid_fraction=1,summary_energy=1"
SPEC = IndexSpec(kind="sparse", engine="seismic", build=ALL, search="query_cut=50,heap_factor=0")
EXACT = IndexSpec(kind="sparse")
QUERIES = ["sparrow nest", "violin chord tempo", "rook castle", "loaf"]


def test_a_missing_package_is_an_error_before_anything_is_encoded(
    tiny_collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name == "seismic":
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(build, "check_kind", lambda *_: None)
    monkeypatch.setattr(build, "load_retriever", lambda *a, **k: pytest.fail("loaded a model"))
    with pytest.raises(InputError, match=r"needs the package pyseismic-lsr[^$]*sparse\.yaml"):
        build_index(open_collection(tiny_collection), "model", SPEC, tmp_path / "ix")
    assert not (tmp_path / "ix").exists()


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    pytest.importorskip("seismic")
    return open_collection(tiny_collection)


@pytest.fixture(scope="module")
def student(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("student") / "sparse"
    make_student(str(tiny_encoder), "sparse", [0]).save(str(path))
    return str(path)


@pytest.fixture(scope="module")
def built(
    collection: Collection, student: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("indexes")
    for name, spec in {"fast": SPEC, "exact": EXACT}.items():
        build_index(collection, student, spec, home / name)
    return {name: home / name for name in ("fast", "exact")}


@pytest.fixture
def folder(built: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(built["fast"], tmp_path / "ix")


def assert_same(one: Path, other: Path) -> None:
    """Weights of 16 bits change scores a little."""
    for left, right in zip(*(Index.open(p).search(QUERIES, 10) for p in (one, other)), strict=True):
        assert [score for _, score in left] == pytest.approx([s for _, s in right], rel=2e-3)
        places = dict(right)
        assert sum(id in places for id, _ in left) >= 9


def test_with_all_weights_it_finds_what_the_exact_index_does(built: dict[str, Path]) -> None:
    assert_same(built["fast"], built["exact"])
    assert verify_index(built["fast"]) == []
    assert (built["fast"] / "index.seismic").exists() and not list(built["fast"].glob(".*.part"))


def test_nothing_is_printed(
    collection: Collection, student: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    index = build_index(collection, student, SPEC, tmp_path / "ix")
    index.search(QUERIES, 5)
    Index.open(tmp_path / "ix").search(QUERIES, 5)
    assert capfd.readouterr().out == ""


def test_the_same_documents_give_the_same_bytes(
    built: dict[str, Path], collection: Collection, student: str, tmp_path: Path
) -> None:
    build_index(collection, student, SPEC, tmp_path / "ix")
    files = [home / "index.seismic" for home in (built["fast"], tmp_path / "ix")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_was_added_is_found_and_what_was_deleted_is_not(
    folder: Path, built: dict[str, Path], tmp_path: Path
) -> None:
    exact = shutil.copytree(built["exact"], tmp_path / "exact")
    first = Index.open(folder).search(QUERIES, 1)[0][0][0]
    for home in (folder, exact):
        delete_documents(home, [first])
        add_documents(home, [Document("new1", "", "sparrow nest"), Document("empty", "", "")])
    found = [id for hits in Index.open(folder).search(QUERIES, 100) for id, _ in hits]
    assert first not in found and "new1" in found
    assert_same(folder, exact)
    compact_index(folder)
    assert_same(folder, exact)
    assert verify_index(folder) == []


@pytest.mark.parametrize("what", ["add", "delete", "compact"])
def test_a_change_killed_before_its_manifest_leaves_the_old_index(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_documents(folder, [Index.open(folder).search(QUERIES, 1)[0][0][0]])
    before = Index.open(folder).search(QUERIES, 100)
    other = Index.open(folder).search(QUERIES, 1)[1][0][0]

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(change, "write_json", die)
        if what == "add":
            add_documents(folder, [Document("new1", "", "sparrow nest")])
        elif what == "delete":
            delete_documents(folder, [other])
        else:
            compact_index(folder)
    assert Index.open(folder).search(QUERIES, 100) == before and verify_index(folder) == []


def test_a_build_killed_before_its_manifest_leaves_no_index_and_is_finished_by_the_next(
    folder: Path, collection: Collection, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest over half of an index would be worse than none."""
    other = IndexSpec(kind="sparse", engine="seismic", build="kept=0.5")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "write_ids", die)
        build_index(collection, student, other, folder)
    with pytest.raises(InputError):
        Index.open(folder)
    build_index(collection, student, other, folder)
    assert verify_index(folder) == [] and not list(folder.glob(".*.part"))


def test_a_file_that_seismic_cannot_read_is_named(folder: Path) -> None:
    path = folder / "index.seismic"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    with pytest.raises(InputError, match=r"index\.seismic"):
        Index.open(folder)
    path.write_bytes(bytes(size))
    with pytest.raises(InputError, match=r"index\.seismic"):
        Index.open(folder, verify=False).search(QUERIES, 5)
    assert len(verify_index(folder)) == 1


def test_another_students_index_and_wrong_search_parameters_are_refused(
    folder: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    make_student(str(tiny_encoder), "sparse", [0, 1]).save(str(tmp_path / "other"))
    with pytest.raises(InputError):
        Index.open(folder, str(tmp_path / "other"))
    with pytest.raises(InputError, match="write them as query_cut=10"):
        Index.open(folder, search="nprobe=3")


def test_words_that_no_document_has_and_empty_queries_find_nothing(tmp_path: Path) -> None:
    pytest.importorskip("seismic")
    width = 50
    rows = random_rows(40, width, density=0.2, format="csr", dtype=np.float32, random_state=0)
    rows[:, 30:] = 0  # and documents without a word
    rows[3:5] = 0
    rows.eliminate_zeros()
    sparse_seismic.write_rows([rows[:15], rows[15:]], width, ALL, tmp_path)
    manifest = {"query_prompt": None, "dimensions": width, "count": 40, "spec": SPEC.as_dict()}
    opened = sparse_seismic.SeismicVectors(tmp_path, manifest, None)
    queries = csr_matrix(np.eye(width, dtype=np.float32)[[2, 45]])
    queries = csr_matrix(np.vstack([queries.toarray(), np.zeros((1, width), np.float32)]))
    (found, _), *none = opened.search(queries, 40)
    assert len(found) > 0 and set(found.tolist()) <= set(rows[:, 2].nonzero()[0].tolist())
    assert all(len(positions) == 0 for positions, _ in none)
