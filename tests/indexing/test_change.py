"""Adding, replacing and deleting documents of a built index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_sealed
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.indexing import change
from retrieval_kd.indexing import index as index_module
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.change import add_documents, compact_index, delete_documents
from retrieval_kd.indexing.index import Hits, Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.indexing.verify import verify_index
from retrieval_kd.models.load import load_retriever
from retrieval_kd.students.make import make_student
from tests.tiny_models import TOPICS

SPECS = {
    "flat": IndexSpec(),
    "sq8": IndexSpec(factory="SQ8"),
    "ivf": IndexSpec(factory="IVF4,Flat", search="nprobe=1"),
    "ivfpq": IndexSpec(factory="IVF2,PQ4x4"),
    "pq": IndexSpec(factory="PQ4x4"),  # takes no selector
    "hnsw": IndexSpec(factory="HNSW8", search="efSearch=4", threads=1),
    "matryoshka": IndexSpec(dimensions=8),
    "sparse": IndexSpec(kind="sparse"),
    "multi_vector": IndexSpec(kind="multi_vector"),
    "coded": IndexSpec(kind="multi_vector", bits=4, pool=2, search="candidates=12,nprobe=2"),
}
EXACT = ("flat", "sparse", "multi_vector")
WORDS = [word for words in TOPICS.values() for word in words.split()]
QUERIES = ["sparrow nest", "violin chord tempo", "rook castle", "loaf"]

Make = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def float32_and_one_loading() -> Iterator[None]:
    """Exact numbers, and a model that is loaded once although each change loads it."""
    loaded: dict[Any, Any] = {}

    def load(spec: str, **more: Any) -> Any:
        key = (spec, *sorted((name, str(value)) for name, value in more.items()))
        if key not in loaded:
            loaded[key] = load_retriever(spec, **more)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRIEVAL_KD_DTYPE", "float32")
        fast_dtype.cache_clear()
        for module in (change, index_module, build_index.__globals__):
            put = patch.setitem if isinstance(module, dict) else patch.setattr
            put(module, "load_retriever", load)  # type: ignore[operator]
        yield
    fast_dtype.cache_clear()


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(tiny_collection)


@pytest.fixture(scope="module")
def make(
    collection: Collection, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Make:
    """Gives a copy of the tiny collection's index of a kind, or the index of another collection."""
    home, models = tmp_path_factory.mktemp("indexes"), {}

    def make(kind: str, to: Path, of: Collection = collection) -> Path:
        model = tiny_encoder
        if (spec := SPECS[kind]).kind != "faiss":
            model = models.setdefault(kind, home / f"{kind}-model")
            if not model.exists():
                make_student(str(tiny_encoder), spec.kind, [0]).save(str(model))
        if of is not collection:
            build_index(of, str(model), spec, to)
            return to
        if not (home / kind).exists():
            build_index(of, str(model), spec, home / kind)
        return shutil.copytree(home / kind, to)

    return make


def search(folder: Path, depth: int = 100) -> list[dict[str, float]]:
    return [dict(hits) for hits in hits_of(folder, depth)]


def hits_of(folder: Path, depth: int = 100) -> list[Hits]:
    return Index.open(folder).search(QUERIES, depth)


def counts(done: change.Change) -> tuple[int, int, int, int]:
    return done.documents, done.added, done.replaced, done.deleted


@pytest.mark.parametrize("kind", SPECS)
def test_what_was_added_is_found_and_what_was_deleted_is_not(
    kind: str, make: Make, tmp_path: Path
) -> None:
    folder = make(kind, tmp_path / "ix")
    new = [Document("new1", "Nests", "sparrow nest"), Document("birds3", "Now music", "violin")]
    assert counts(add_documents(folder, new)) == (61, 1, 1, 0)
    index = Index.open(folder)
    everything = len(index) if kind != "sparse" else 1
    for hits in index.search(QUERIES, 100):
        ids = [id for id, _ in hits]
        assert len({*ids}) == len(ids) >= everything or kind in ("ivf", "ivfpq")
    assert index.search(["Nests sparrow nest"], 20)[0][0][0] == "new1" or kind != "flat"
    assert index.texts()["birds3"].title == "Now music"
    assert index.texts()["birds4"].title.startswith("birds")

    kept = {"new1", "birds3", "ships1", "chess2"}
    gone = [str(id) for id in [*index.ids.to_pylist()] if id not in kept]
    assert counts(delete_documents(folder, gone)) == (4, 0, 0, 57)
    assert len(Index.open(folder)) == 4 and verify_index(folder) == []
    for found in search(folder):
        assert {*found} == kept or (kind == "sparse" and {*found} <= kept)
    assert counts(compact_index(folder)) == (4, 0, 0, 0)
    names = {path.name for path in folder.iterdir()}
    assert names == {".lock", "manifest.json", "base-000003"} and verify_index(folder) == []
    for found in search(folder):
        assert {*found} <= kept
    assert Index.open(folder).texts()["new1"].title == "Nests"


TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
ID = st.sampled_from(["birds1", "birds2", "ships0", "chess9", "new1", "new2", "new3"])
CHANGES = st.lists(
    st.one_of(
        st.dictionaries(ID, TEXT, min_size=1, max_size=3),
        st.lists(ID, min_size=1, max_size=3),
        st.just("compact"),
    ),
    min_size=3,
    max_size=8,
)


def write_final(truth: dict[str, Document], folder: Path) -> Collection:
    folder.mkdir(parents=True)
    rows = [{"_id": d.id, "title": d.title, "text": d.text} for d in truth.values()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "nest"}\n')
    return open_collection(folder)


@pytest.mark.parametrize("kind", EXACT)
@settings(max_examples=5)
@given(changes=CHANGES)
def test_a_changed_index_equals_one_that_is_built_anew(
    kind: str, make: Make, collection: Collection, tmp_path_factory: Any, changes: list[Any]
) -> None:
    home = tmp_path_factory.mktemp("random")
    folder = make(kind, home / "changed")
    truth = {document.id: document for document in collection.documents.iterate()}
    for one in changes:
        if one == "compact":
            compact_index(folder)
        elif isinstance(one, dict):
            done = add_documents(folder, [Document(id, "", text) for id, text in one.items()])
            assert done.replaced == len(one.keys() & truth.keys())
            truth |= {id: Document(id, "", text) for id, text in one.items()}
        else:
            done = delete_documents(folder, one, missing="skip")
            assert done.deleted == len({*one} & truth.keys())
            truth = {id: document for id, document in truth.items() if id not in one}
    assert len(Index.open(folder)) == len(truth)
    anew = make(kind, home / "anew", write_final(truth, home / "data"))
    for found, expected in zip(search(folder), search(anew), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    texts = Index.open(folder).texts()
    assert all(texts[id] == document for id, document in truth.items())


@pytest.mark.parametrize("what", ["add", "delete", "compact"])
def test_a_change_killed_before_its_manifest_leaves_the_old_index(
    what: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("flat", tmp_path / "ix")
    add_documents(folder, [Document("new1", "", "sparrow nest"), Document("ships1", "", "sail")])
    before, files = hits_of(folder), {path.name for path in folder.iterdir()}

    def do() -> None:
        if what == "add":
            add_documents(folder, [Document("new2", "", "violin chord")])
        elif what == "delete":
            delete_documents(folder, ["birds1"])
        else:
            compact_index(folder)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(change, "write_json", die)
        do()
    assert {path.name for path in folder.iterdir()} > files
    assert hits_of(folder) == before and verify_index(folder) == []
    (folder / ".index.faiss.x.part").touch()  # as one that was killed earlier leaves
    do()
    manifest = read_sealed(folder / "manifest.json")
    named = {Path(name).parts[0] for name in manifest["files"]}
    assert {path.name for path in folder.iterdir()} == {*named, "manifest.json", ".lock"}
    documents = {"add": 62, "delete": 60, "compact": 61}[what]
    assert len(Index.open(folder)) == documents and verify_index(folder) == []


def test_a_killed_addition_encodes_nothing_twice(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, new = make("flat", tmp_path / "ix"), [Document("new1", "", "sparrow nest")]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(change, "_live_parts", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        add_documents(folder, new)
    with monkeypatch.context() as patch:
        patch.setattr(change.dense, "encode_uncached", None)  # must not be called
        assert counts(add_documents(folder, new)) == (61, 1, 0, 0)
    assert not list(folder.glob(".shards-*"))


DAMAGED = ["segment-000001/vectors.npz", "segment-000001/documents/texts.arrow",
           "segment-000001/documents/texts.json", "deleted-000001.npy"]  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_of_a_change_is_found_and_named(
    name: str, make: Make, tmp_path: Path
) -> None:
    folder = make("flat", tmp_path / "ix")
    add_documents(folder, [Document("new1", "", "nest"), Document("birds1", "", "beak")])
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    for use in (Index.open, compact_index, lambda f: delete_documents(f, ["birds2"])):
        with pytest.raises(InputError, match=f"{name}: digest differs"):
            use(folder)  # type: ignore[operator]
    [problem] = verify_index(folder)
    assert f"{name}: digest differs" in problem
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name}: the index lacks this file"):
        Index.open(folder)


def test_swapped_files_are_found(make: Make, tmp_path: Path) -> None:
    folder = make("flat", tmp_path / "ix")
    add_documents(folder, [Document("new1", "", "nest"), Document("new2", "", "beak")])
    add_documents(folder, [Document("new3", "", "mast")])
    first, second = (folder / f"segment-00000{n}" for n in (1, 2))
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    assert len(verify_index(folder)) > 1
    with pytest.raises(InputError, match=r"segment-000001/.* differs"):
        Index.open(folder)


def test_few_segments_remain_of_many_additions(make: Make, tmp_path: Path) -> None:
    folder = make("sparse", tmp_path / "ix")
    for number in range(7):
        add_documents(folder, [Document(f"new{number}", "", WORDS[number])])
    assert list(Index.open(folder).layout.segments.values()) == [4, 2, 1]
    add_documents(folder, [Document("new0", "", "nest")])  # replaces one of them
    assert list(Index.open(folder).layout.segments.values()) == [7]
    assert len(Index.open(folder).deleted) == 0 and len(Index.open(folder)) == 67


def test_wrong_input_changes_nothing(
    make: Make, tmp_path: Path, tiny_encoder: Path, tiny_dot_encoder: Path
) -> None:
    folder = make("flat", tmp_path / "ix")
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*")}
    new = Document("new1", "", "nest")
    with pytest.raises(InputError, match=r"documents:2: duplicate document ID.*\(id new1\)"):
        add_documents(folder, [new, new])
    with pytest.raises(InputError, match="no document at all"):
        add_documents(folder, [])
    with pytest.raises(InputError, match=r"encoded by .* not by .*dot"):
        add_documents(folder, [new], model_spec=str(tiny_dot_encoder))
    with pytest.raises(InputError, match=r"2 of 3 IDs to delete are not in this index: no, nor"):
        delete_documents(folder, ["no", "birds1", "nor", "no"])
    with pytest.raises(InputError, match=r"one string. To fix: give a list: \['birds1'\]"):
        delete_documents(folder, "birds1")
    with pytest.raises(InputError, match="no finished index here"):
        add_documents(tiny_encoder, [new])
    assert not (tiny_encoder / ".lock").exists()
    assert delete_documents(folder, ["no"], missing="skip").missing == 1
    assert compact_index(folder).loose == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*")} == before


def test_a_second_change_at_the_same_time_is_refused(make: Make, tmp_path: Path) -> None:
    folder = make("flat", tmp_path / "ix")
    with FileLock(folder / ".lock"):
        with pytest.raises(InputError, match="another command is changing this index"):
            delete_documents(folder, ["birds1"])
    assert delete_documents(folder, ["birds1"]).deleted == 1


def test_an_index_is_opened_although_it_changes_at_that_moment(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("flat", tmp_path / "ix")
    add_documents(folder, [Document("new1", "", "sparrow nest")])
    opened, before = Index.open(folder), hits_of(folder)
    real, changed = index_module.check_files, []

    def check(*arguments: Any) -> None:
        if not changed:
            changed.append(compact_index(folder))
        real(*arguments)

    monkeypatch.setattr(index_module, "check_files", check)
    assert hits_of(folder) == before and changed
    assert opened.search(QUERIES, 100) == before  # an open one stays as it was
    with pytest.raises(InputError, match="changed after it was opened"):
        opened.texts()["new1"]


@pytest.mark.parametrize("kind", ["flat", "sparse", "coded"])
def test_an_index_is_opened_although_it_changes_after_its_files_were_checked(
    kind: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(kind, tmp_path / "ix")
    delete_documents(folder, ["birds1"])
    before = hits_of(folder)
    real, changed = index_module.open_vectors, []

    def open_vectors(*arguments: Any) -> Any:
        if not changed:
            changed.append(compact_index(folder))
        return real(*arguments)

    monkeypatch.setattr(index_module, "open_vectors", open_vectors)
    for found, expected in zip(search(folder), map(dict, before), strict=True):
        assert found == pytest.approx(expected, abs=1e-5) and changed


def test_a_faiss_file_that_cannot_be_read_is_named(make: Make, tmp_path: Path) -> None:
    folder = make("flat", tmp_path / "ix")
    path = folder / "index.faiss"
    path.write_bytes(b"none" + path.read_bytes()[4:])
    with pytest.raises(InputError, match=r"index\.faiss: FAISS cannot read this index"):
        Index.open(folder, verify=False)


def test_a_row_that_is_deleted_in_a_segment_is_loose_once(
    make: Make, tmp_path: Path, collection: Collection
) -> None:
    folder = make("flat", tmp_path / "ix")
    new = [Document(f"new{number}", "", "nest") for number in range(20)]
    assert add_documents(folder, new).loose == 0.25  # 20 of 80
    assert delete_documents(folder, ["new1", "new2", "birds1"]).loose == 0.263  # 21 of 80
    assert delete_documents(folder, collection.documents.ids(), missing="skip").loose == 1


def test_an_emptied_index_finds_nothing_until_something_is_added(
    make: Make, tmp_path: Path, collection: Collection
) -> None:
    for kind in EXACT:
        folder = make(kind, tmp_path / kind)
        assert delete_documents(folder, collection.documents.ids()).documents == 0
        assert hits_of(folder) == [[]] * len(QUERIES)
        with pytest.raises(InputError, match="no document left"):
            compact_index(folder)
        add_documents(folder, [Document("birds1", "", "sparrow nest")])
        assert [*search(folder)[0]] == ["birds1"]


def test_building_again_replaces_what_was_changed(
    make: Make, tmp_path: Path, collection: Collection, tiny_encoder: Path
) -> None:
    folder, seen = make("flat", tmp_path / "ix"), []
    before = hits_of(folder)
    add_documents(folder, [Document("new1", "", "sparrow nest")])
    compact_index(folder)
    delete_documents(folder, ["birds1"])
    build_index(collection, str(tiny_encoder), IndexSpec(), folder, replacing=seen.append)
    assert [old["count"] for old in seen] == [60] and hits_of(folder) == before
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "index.faiss", "ids.arrow", "manifest.json"
    }  # fmt: skip


def test_bytes_and_figures_are_of_what_is_there_now(make: Make, tmp_path: Path) -> None:
    folder = make("flat", tmp_path / "ix")
    add_documents(folder, [Document("new1", "", "sparrow nest"), Document("ships1", "", "sail")])
    manifest = Index.open(folder).manifest
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    assert manifest["bytes"] == sum(f.stat().st_size for f in files if f.name != "manifest.json")
    assert manifest["count"] == 61
    timing = Index.open(folder).measure(QUERIES)
    vectors = folder / "segment-000001" / "vectors.npz"
    deleted = folder / "deleted-000001.npy"
    assert timing.index_bytes == sum(
        path.stat().st_size for path in (folder / "index.faiss", vectors, deleted)
    )
    assert np.load(deleted).tolist() == [int(Index.open(folder).deleted[0])]
