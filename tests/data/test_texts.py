"""Texts: what goes in comes out, by ID and by position, in little memory, by many builders."""

from __future__ import annotations

import json
import pickle
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.data import texts as texts_module
from retrieval_kd.data.rows import Row
from retrieval_kd.data.texts import Document, Texts, UnknownID, build_texts
from retrieval_kd.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
LETTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ID = st.text(LETTER, min_size=1, max_size=12).filter(lambda id: id.split() == [id])
ROWS = st.lists(
    st.builds(Row, ID, TEXT, TEXT, st.just(""), st.just(0)),
    min_size=1,
    max_size=40,
    unique_by=lambda r: r.id,
)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_texts_are_read_back_unchanged(rows: list[Row]) -> None:
    documents = [Document(*row[:3]) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        texts = build_texts(rows, folder)
        assert len(texts) == len(rows)
        assert list(texts.iterate()) == documents
        assert list(texts.ids()) == [row.id for row in rows]
        for position, document in enumerate(documents):
            assert texts.position(document.id) == position
            assert texts.id_at(position) == document.id
            assert texts[document.id] == texts.at(position) == document
            assert document.id in texts
        assert "not in it" not in texts


@settings(deadline=None, max_examples=40)
@given(ROWS, st.integers(0, 45), st.integers(0, 45))
def test_iterate_is_a_slice(rows: list[Row], start: int, stop: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts_module, "BATCH_ROWS", 7)
        texts = build_texts(rows, folder)
        assert [d.id for d in texts.iterate(start, stop)] == [r.id for r in rows[start:stop]]
        assert [texts.position(row.id) for row in rows] == list(range(len(rows)))


def test_ids_with_equal_hashes_are_distinguished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts_module, "hash_id", lambda id: len(id))
    texts = build_texts([Row(id, "", id) for id in ("a", "bb", "c", "dd", "e")], tmp_path / "t")
    assert [texts.position(id) for id in ("a", "bb", "c", "dd", "e")] == [0, 1, 2, 3, 4]
    assert "f" not in texts
    with pytest.raises(InputError, match="duplicate document ID"):
        build_texts([Row(id, "", id) for id in ("a", "bb", "c", "a")], tmp_path / "t2")


@pytest.mark.parametrize(
    "change",
    [Row("d1", "t", "other"), Row("d1", "other", "x"), Row("d9", "t", "x"), Row("d1", "tx", "")],
)
def test_any_change_of_text_changes_the_digest(tmp_path: Path, change: Row) -> None:
    rows = [Row("d1", "t", "x"), Row("d2", "", "y")]
    before = build_texts(rows, tmp_path / "a").digest
    assert len(before) == 32
    assert build_texts(rows, tmp_path / "b").digest == before
    assert build_texts([change, rows[1]], tmp_path / "c").digest != before


def test_unknown_ids_are_key_errors_that_name_the_id(tmp_path: Path) -> None:
    texts = build_texts([Row("q1", "", "x")], tmp_path / "t", noun="query")
    for error in (UnknownID, InputError, KeyError):
        with pytest.raises(error, match=r"^unknown query ID \(id q2\)\. To fix"):
            texts["q2"]
    with pytest.raises(IndexError, match="position 1 of 1"):
        texts.id_at(1)


def test_worker_processes_get_the_folder_not_the_texts(tmp_path: Path) -> None:
    texts = build_texts([Row("d1", "t", "x" * 10_000)], tmp_path / "t")
    sent = pickle.dumps(texts)  # as multiprocessing sends it; nothing of it is stored
    assert len(sent) < 1_000
    assert pickle.loads(sent)["d1"] == texts["d1"]


def test_memory_stays_flat(tmp_path: Path) -> None:
    count = 200_000

    def rows() -> Iterator[Row]:
        for number in range(count):
            yield Row(
                f"document-{number}", f"title {number}", f"text of {number} " * 3, "f", number
            )

    tracemalloc.start()
    try:
        texts = build_texts(rows(), tmp_path / "many")
        building_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        base = tracemalloc.get_traced_memory()[0]
        assert sum(len(d.text) for d in texts.iterate(100_000)) > 4_000_000
        assert texts.position("document-123456") == 123_456
        reading_peak = tracemalloc.get_traced_memory()[1] - base
    finally:
        tracemalloc.stop()
    assert building_peak < 16_000_000  # a list of the rows takes more than 80 MB
    assert reading_peak < 4_000_000


def test_a_failed_build_leaves_the_old_texts(tmp_path: Path) -> None:
    build_texts([Row("d1", "", "old")], tmp_path / "t")
    with pytest.raises(InputError):
        build_texts([Row("d1", "", "new"), Row("", "", "x")], tmp_path / "t")
    assert Texts(tmp_path / "t")["d1"].text == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_concurrent_builders_leave_whole_texts(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def build(text: str) -> None:
        try:
            for _ in range(5):
                build_texts([Row(f"d{n}", "", text) for n in range(50)], tmp_path / "t")
        except BaseException as error:  # reported by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=build, args=(text,)) for text in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({document.text for document in Texts(tmp_path / "t").iterate()}) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("name", ["texts.arrow", "texts.json", "hashes.npy", "positions.npy"])
def test_a_damaged_folder_is_refused(tmp_path: Path, name: str) -> None:
    texts = build_texts([Row("d1", "", "x")], tmp_path / "t")
    file = texts.folder / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match="not a complete folder of texts"):
        Texts(texts.folder)
    file.write_bytes(b"")
    with pytest.raises(InputError, match="not a complete folder of texts"):
        Texts(texts.folder)
    file.unlink()
    with pytest.raises(InputError, match="not a complete folder of texts"):
        Texts(texts.folder)


def test_nothing_on_disk_needs_unpickling(tmp_path: Path) -> None:
    texts = build_texts([Row("d1", "", "x")], tmp_path / "t")
    assert sorted(file.name for file in texts.folder.iterdir()) == [
        "hashes.npy",
        "positions.npy",
        "seal.json",
        "texts.arrow",
        "texts.json",
    ]
    assert json.loads((texts.folder / "texts.json").read_text())["count"] == 1
