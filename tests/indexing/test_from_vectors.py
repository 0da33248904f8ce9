"""Indexes of vectors that are there already, and of parts that survive a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from typer.testing import CliRunner

from retrieval_kd.cli.app import app
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.indexing import build, parts
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.change import add_documents, delete_documents
from retrieval_kd.indexing.dense import copied, make_index
from retrieval_kd.indexing.from_vectors import index_vectors
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models.encode import document_vectors
from retrieval_kd.students.make import make_student

CELLS = IndexSpec(factory="IVF4,SQ8", search="nprobe=4")


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_collection, tiny_encoder) -> tuple[Path, Path]:
    """The vectors and IDs of the tiny collection."""
    folder, texts = tmp_path_factory.mktemp("vectors"), open_collection(tiny_collection).documents
    np.save(folder / "v.npy", document_vectors(str(tiny_encoder), texts))
    (folder / "ids.txt").write_text("".join(f"{id}\n" for id in texts.ids()))
    return folder / "v.npy", folder / "ids.txt"


@pytest.mark.parametrize("spec", [IndexSpec(), CELLS, IndexSpec(factory="HNSW8", threads=1)])
def test_it_is_the_index_that_encoding_would_build(
    files, tiny_collection, tiny_encoder, tmp_path, spec
):
    vectors, ids = files
    own = index_vectors(vectors, str(tiny_encoder), spec, tmp_path / "own", ids=ids)
    collection = open_collection(tiny_collection)
    encoded = build_index(collection, str(tiny_encoder), spec, tmp_path / "encoded")
    assert own.manifest["files"] == encoded.manifest["files"]
    queries = collection.query_texts("test")
    found = Index.open(tmp_path / "own").search_run(queries, 10).results
    assert found == encoded.search_run(queries, 10).results


def test_half_precision_and_numbers_as_ids(files, tiny_encoder, tmp_path):
    whole = np.load(files[0])
    np.save(tmp_path / "half.npy", whole.astype(np.float16))
    index = index_vectors(tmp_path / "half.npy", str(tiny_encoder), IndexSpec(), tmp_path / "index")
    hits = index.search_vectors(whole[[5, 11]], 1)
    assert [hit[0] for [hit] in hits] == ["5", "11"]


def test_documents_are_added_and_deleted_and_only_added_ones_have_texts(
    files, tiny_encoder, tmp_path
):
    vectors, ids = files
    index_vectors(vectors, str(tiny_encoder), CELLS, tmp_path / "index", ids=ids)
    first = ids.read_text().split()[0]
    from retrieval_kd.data.texts import Document

    add_documents(tmp_path / "index", [Document("new", "A title", "the birds of the sea")])
    delete_documents(tmp_path / "index", [first])
    index = Index.open(tmp_path / "index")
    found = {id for id, _ in index.search(["the birds of the sea"], 60)[0]}
    assert "new" in found and first not in found
    assert index.texts()["new"].title == "A title" and index.texts()[found.pop()].id
    with pytest.raises(InputError, match="built from a file of vectors and has no texts"):
        index.collection()


def test_parts_are_joined_to_the_same_bytes(files, tiny_encoder, tmp_path, monkeypatch):
    vectors, ids = files
    whole = index_vectors(vectors, str(tiny_encoder), CELLS, tmp_path / "whole", ids=ids)
    monkeypatch.setattr(parts, "PART", 25)
    joined = index_vectors(vectors, str(tiny_encoder), CELLS, tmp_path / "parts", ids=ids)
    assert joined.manifest["files"] == whole.manifest["files"]
    assert not list((tmp_path / "parts").glob(".parts*"))


def test_a_killed_build_adds_no_part_twice(files, tiny_encoder, tmp_path, monkeypatch):
    vectors, ids = files
    whole = index_vectors(vectors, str(tiny_encoder), CELLS, tmp_path / "whole", ids=ids)
    monkeypatch.setattr(parts, "PART", 25)
    added: list[int] = []
    add = parts.add_rows

    def add_rows(index: Any, spec: Any, rows: Any, *rest: Any) -> None:
        if len(added) == 2:
            added.append(-1)
            raise KeyboardInterrupt
        added.append(len(rows))
        add(index, spec, rows, *rest)

    monkeypatch.setattr(parts, "add_rows", add_rows)
    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        index_vectors(vectors, str(tiny_encoder), CELLS, out, ids=ids)
    kept = sorted(out.glob(".parts-*/0*.faiss"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-1] + b"x")  # damaged since
    trained = []
    monkeypatch.setattr(parts, "train_index", lambda *_: trained.append(1))
    again = index_vectors(vectors, str(tiny_encoder), CELLS, out, ids=ids)
    assert added == [25, 25, -1, 25, 10] and not trained
    assert again.manifest["files"] == whole.manifest["files"]


def test_a_build_killed_while_it_is_written_adds_nothing_again(
    files, tiny_encoder, tmp_path, monkeypatch
):
    """The parts are there until the manifest is; then they are gone, those of other builds too."""
    vectors, ids = files
    monkeypatch.setattr(parts, "PART", 25)
    out = tmp_path / "killed"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build.dense, "write_index", killed)
        index_vectors(vectors, str(tiny_encoder), CELLS, out, ids=ids)
    assert len(list(out.glob(".parts-*/0*.faiss"))) == 3
    with monkeypatch.context() as patch:
        patch.setattr(parts, "add_rows", None)
        index_vectors(vectors, str(tiny_encoder), CELLS, out, ids=ids)
    assert not list(out.glob(".parts-*"))
    (out / ".parts-given-up").mkdir()
    index_vectors(vectors, str(tiny_encoder), IndexSpec(), out, ids=ids)
    assert not list(out.glob(".parts-*"))


def test_a_factory_with_a_step_that_faiss_cannot_clone_is_made():
    assert make_index(IndexSpec(factory="L2norm,Flat"), 32, 60).is_trained


@pytest.mark.parametrize(
    ("factory", "joins"),
    [
        ("IVF4,Flat", True),
        ("IVF4,SQ8", True),
        ("OPQ4,IVF4,PQ4x4", True),
        ("L2norm,IVF4,Flat", True),
        ("IVF4,PQ4x4fs", False),
        ("HNSW8", False),
        ("Flat", False),
        ("IVF4,SQ8,RFlat", False),
    ],
)
def test_only_what_joins_to_the_same_bytes_is_built_in_parts(factory, joins):
    rng, count = np.random.default_rng(0), 400
    rows = rng.standard_normal((count, 8)).astype(np.float32)
    index = faiss.index_factory(8, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    assert parts.joins(index) == joins
    if joins:
        first, second, whole = (copied(index) for _ in range(3))
        first.add(rows[:150])
        second.add(rows[150:])
        whole.add(rows)
        first.merge_from(second, 150)
        assert np.array_equal(faiss.serialize_index(first), faiss.serialize_index(whole))


def broken(files: tuple[Path, Path], folder: Path, how: str) -> tuple[Path, Path]:
    """Copies of the files with one thing wrong."""
    rows, ids = np.load(files[0]), files[1].read_text()
    vectors, names = folder / "v.npy", folder / "ids.txt"
    lines = ids.splitlines()
    if how == "nan":
        rows[7, 3] = np.nan
    if how == "zeros":
        rows[7] = 0
    np.save(vectors, {"narrow": rows[:, :8], "long": rows.astype(np.float64)}.get(how, rows))
    if how == "cut":
        vectors.write_bytes(vectors.read_bytes()[:-10])
    if how == "text":
        vectors.write_text("no numbers")
    if how == "empty":
        lines[2] = ""
    if how == "spaced":
        lines[4] = "a\tb"
    if how == "twice":
        lines[9] = lines[4]
    names.write_text("\n".join(lines[: 3 if how == "few" else None]) + "\n")
    return vectors, names


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("nan", r"v\.npy: row 7 \(from 0\) is not finite"),
        ("zeros", r"row 7 \(from 0\) is zeros alone"),
        ("narrow", "vectors of 8 dimensions; those of .* have 32"),
        ("long", "float64 of shape"),
        ("cut", "no whole .npy file"),
        ("text", "no whole .npy file"),
        ("few", r"ids\.txt: 3 document IDs for 60 vectors"),
        ("empty", r"ids\.txt: 59 document IDs for 60 vectors"),
        ("spaced", r"ids\.txt:5: document ID with whitespace"),
        ("twice", r"ids\.txt:10: the document ID is in line 5 too"),
    ],
)
def test_wrong_files_are_refused_before_anything_is_written(
    files, tiny_encoder, tmp_path, how, problem
):
    vectors, ids = broken(files, tmp_path, how)
    with pytest.raises(InputError, match=problem):
        index_vectors(vectors, str(tiny_encoder), CELLS, tmp_path / "out", ids=ids)
    assert not (tmp_path / "out").exists()


def test_a_token_index_has_no_file_of_vectors(files, tiny_encoder, tmp_path):
    with pytest.raises(InputError, match="this specification is multi_vector"):
        index_vectors(files[0], str(tiny_encoder), IndexSpec(kind="multi_vector"), tmp_path / "o")


def test_from_the_command_line(files, tiny_encoder, tmp_path):
    vectors, ids = files
    call = ["index", "vectors", "--vectors", vectors, "--ids", ids, "--model", tiny_encoder,
            "--out", tmp_path / "index"]  # fmt: skip
    made = CliRunner().invoke(app, [str(part) for part in call])
    assert made.exit_code == 0 and "60 documents" in made.output
    shown = CliRunner().invoke(app, ["search", "--index", str(tmp_path / "index"), "birds"])
    assert shown.exit_code == 0 and f"[{ids.read_text().split()[0][0]}" in shown.output


def test_a_model_of_another_kind_is_refused(files, tiny_encoder, tmp_path):
    make_student(str(tiny_encoder), "sparse", [0, 3]).save(str(tmp_path / "sparse"))
    with pytest.raises(InputError, match="is a sparse model, this specification indexes dense"):
        index_vectors(files[0], str(tmp_path / "sparse"), CELLS, tmp_path / "out")
