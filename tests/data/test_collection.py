"""Collections: every form of the same data is the same collection; the cache never lies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval_kd.data import collection as module
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from tests.data.files import (
    DOCUMENTS,
    QRELS,
    QUERIES,
    write,
    write_beir,
    write_msmarco,
    write_trec,
    zip_folder,
)
from tests.data.test_texts import ID, TEXT

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("RETRIEVAL_KD_DATA") or ROOT / "../shared/data").resolve()


def beir(folder: Path) -> Path:
    return write_beir(folder / "c")


def beir_gz(folder: Path) -> Path:
    return write_beir(folder / "c", ending=".gz")


def beir_zip(folder: Path) -> Path:
    return zip_folder(write_beir(folder / "c"), folder / "c.zip", "c/")


def beir_zip_of_gz_without_folder(folder: Path) -> Path:
    return zip_folder(write_beir(folder / "c", ending=".gz"), folder / "c.zip")


def beir_zip_from_a_mac(folder: Path) -> Path:
    path = beir_zip(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/c/._corpus.jsonl", b"\x00\x05\x16\x07")
    return path


def beir_zip_with_hidden_files(folder: Path) -> Path:
    path = beir_zip(folder)
    with zipfile.ZipFile(path, "a") as archive:
        for name in (
            "c/.DS_Store",
            "c/._corpus.jsonl",
            "c/qrels/._test.tsv",
            ".Trash/corpus.jsonl",
        ):
            archive.writestr(name, b"\x00\x05\x16\x07")
    return path


def zip_without_its_suffix(folder: Path) -> Path:
    path = beir_zip(folder)
    shutil.rmtree(folder / "c")
    return path.rename(folder / "c")


def qrels_in_json_lines(folder: Path) -> Path:
    """As mteb's collections have them, with fractions that are whole."""
    path = write_beir(folder / "c")
    for split, judged in QRELS.items():
        (path / "qrels" / f"{split}.tsv").unlink()
        rows = [{"query-id": q, "corpus-id": d, "score": float(gain)}
                for q, found in judged.items() for d, gain in found.items()]  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write(path / "qrels" / f"{split}.jsonl{'.gz' if split == 'test' else ''}", lines)
    return path


def qrels_called_txt(folder: Path) -> Path:
    path = write_beir(folder / "c")
    for file in list(path.glob("qrels/*.tsv")):
        file.rename(file.with_suffix(".txt"))
    write(path / "qrels" / "README.txt", "judgments by people")
    return path


def old_mac_lines(folder: Path) -> Path:
    path = write_beir(folder / "c")
    for file in [*path.glob("*.jsonl"), *path.glob("qrels/*")]:
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r"))
    return path


def trec_topics_in_xml(folder: Path) -> Path:
    path = write_trec(folder / "c")
    (path / "topics.txt").unlink()
    topics = "".join(
        f'<topic number="{i}">\n<query>{text}</query>\n<question>More?</question>\n'
        "<narrative>Even more.</narrative>\n</topic>\n"
        for i, text in QUERIES
    )
    write(path / "topics.xml", f'<?xml version="1.0"?>\n<topics task="a">\n{topics}</topics>\n')
    return path


def windows_lines(folder: Path) -> Path:
    path = write_beir(folder / "c")
    for file in path.rglob("*.*l"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    return path


def trec(folder: Path) -> Path:
    return write_trec(folder / "c")


def trec_with_labelled_titles(folder: Path) -> Path:
    path = write_trec(folder / "c")
    topics = path / "topics.txt"
    write(topics, topics.read_text().replace("<title> ", "<title> Topic: "))
    return path


def trec_tables(folder: Path) -> Path:
    path = write_trec(folder / "c")
    (path / "documents" / "part1.sgml.gz").unlink()
    (path / "topics.txt").unlink()
    write(path / "docs.tsv.gz", "".join(f"{i}\t{t}\t{x}\n" for i, t, x in DOCUMENTS))
    write(path / "queries" / "all.tsv", "".join(f"{i}\t{x}\n" for i, x in QUERIES))
    return path


FORMS = [
    beir,
    beir_gz,
    beir_zip,
    beir_zip_of_gz_without_folder,
    beir_zip_from_a_mac,
    beir_zip_with_hidden_files,
    zip_without_its_suffix,
    qrels_in_json_lines,
    qrels_called_txt,
    old_mac_lines,
    trec_topics_in_xml,
    windows_lines,
    trec,
    trec_with_labelled_titles,
    trec_tables,
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_data_is_the_same_collection(form, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    collection = open_collection(form(tmp_path))
    assert [tuple(document) for document in collection.documents.iterate()] == DOCUMENTS
    assert [(query.id, query.text) for query in collection.queries.iterate()] == QUERIES
    assert collection.splits == ["test", "train"]
    assert {split: collection.qrels(split) for split in collection.splits} == QRELS
    assert collection.name == "c"
    assert not collection.drops.summary()
    reference = open_collection(write_beir(tmp_path / "reference"))
    assert collection.digest() == reference.digest()
    assert collection.qrels_digest("test") == reference.qrels_digest("test")
    assert collection.query_texts("train") == {"q2": "what is wind"}


def test_msmarco_tables_are_read(tmp_path: Path) -> None:
    collection = open_collection(write_msmarco(tmp_path / "marco"))
    assert [(d.id, d.text) for d in collection.documents.iterate()] == [
        (i, text) for i, _, text in DOCUMENTS
    ]
    assert {split: collection.qrels(split) for split in collection.splits} == QRELS
    assert [(query.id, query.text) for query in collection.queries.iterate()] == QUERIES
    assert collection.drops.summary()[0].startswith("1 × query repeated in another file")


def test_msmarco_documents_have_titles(tmp_path: Path) -> None:
    folder = write_msmarco(tmp_path / "marco")
    (folder / "collection.tsv").unlink()
    lines = "".join(f"{i}\thttp://x/{i}\t{title}\t{text}\n" for i, title, text in DOCUMENTS)
    write(folder / "msmarco-docs.tsv.gz", lines)
    assert open_collection(folder).documents["d1"] == Document(*DOCUMENTS[0])


IDS = st.lists(ID, min_size=1, max_size=8, unique=True)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_unicode_comes_through_beir_unchanged(data: st.DataObject) -> None:
    documents = [(i, data.draw(TEXT), data.draw(TEXT)) for i in data.draw(IDS)]
    queries = [(i, data.draw(TEXT) + "?") for i in data.draw(IDS)]
    gains = st.dictionaries(
        st.sampled_from([d[0] for d in documents]), st.integers(0, 3), min_size=1
    )
    judged = st.sampled_from([q[0] for q in queries])
    qrels = data.draw(st.dictionaries(judged, gains, min_size=1))
    with tempfile.TemporaryDirectory() as folder:
        path = write_beir(Path(folder) / "c", documents, queries, {"a b": qrels})
        collection = open_collection(path)
        assert [tuple(document) for document in collection.documents.iterate()] == documents
        assert [(query.id, query.text) for query in collection.queries.iterate()] == queries
        assert collection.qrels("a b") == qrels
        assert list(collection.query_texts("a b")) == list(qrels)


def test_a_collection_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_beir(tmp_path / "c")
    first = open_collection(folder)
    monkeypatch.setattr(module, "_build", None)
    assert open_collection(folder).folder == first.folder
    write(folder / "notes.txt", "not part of the collection")
    assert open_collection(str(folder) + "/").folder == first.folder


def test_a_changed_source_is_read_again(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "c")
    before = open_collection(folder)
    write_beir(folder, [("d1", "Tides", "The Moon pulls the sea."), *DOCUMENTS[1:]])
    os.utime(folder / "corpus.jsonl", ns=(1, 1))  # the same size, and the clock may be coarse
    after = open_collection(folder)
    assert after.documents["d1"].text == "The Moon pulls the sea."
    assert before.documents["d1"].text == "The moon pulls the sea."
    assert after.digest() != before.digest()


def test_a_damaged_cache_is_built_again(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "c")
    for name in ("collection.json", "documents/texts.arrow", "queries/hashes.npy", "qrels/0.tsv"):
        file = open_collection(folder).folder / name
        file.unlink()
        assert open_collection(folder).qrels("test") == QRELS["test"]
        assert file.exists()


def test_a_second_builder_uses_the_existing_cache(tmp_path: Path) -> None:
    path = write_beir(tmp_path / "c")
    first = open_collection(path)
    stamp = (first.folder / "collection.json").stat().st_mtime_ns
    again = module._build(module.find_reader(str(path)), first.folder, str(path))
    assert (again.folder / "collection.json").stat().st_mtime_ns == stamp
    assert not [p for p in first.folder.parent.iterdir() if p.name.startswith(f".{path.name}-")]


def test_concurrent_builders_get_the_same_collection(tmp_path: Path) -> None:
    path = write_beir(tmp_path / "c", [(f"d{n}", "", f"text {n}") for n in range(500)])
    script = (
        "import sys; from retrieval_kd.data.collection import open_collection\n"
        "print(open_collection(sys.argv[1]).digest())"
    )
    command = [sys.executable, "-c", script, str(path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    digests = [process.communicate(timeout=120)[0] for process in started]
    assert digests == [open_collection(path).digest() + "\n"] * 3


def test_the_callers_changes_do_not_reach_the_collection(tmp_path: Path) -> None:
    collection = open_collection(write_beir(tmp_path / "c"))
    collection.qrels("test")["q1"]["d1"] = 7
    assert collection.qrels("test") == QRELS["test"]


@pytest.mark.parametrize("packed", [True, False])
def test_a_single_collection_deep_inside_is_opened(packed: bool, tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "outer" / "a" / "b")
    spec = tmp_path / "outer"
    if packed:
        spec = zip_folder(folder, tmp_path / "deep.zip", "a/b/")
    assert open_collection(spec).splits == ["test", "train"]


def test_judgments_beside_the_corpus_are_read(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "c")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels.tsv")
    (folder / "qrels" / "train.tsv").rename(folder / "qrels.train.tsv")
    opened = open_collection(folder)
    assert opened.splits == ["test", "train"]
    (folder / "qrels").rmdir()
    assert open_collection(folder).qrels("test") == opened.qrels("test")


def test_stats_can_be_written_as_json(tmp_path: Path) -> None:
    stats = open_collection(write_beir(tmp_path / "c")).stats()
    assert json.loads(json.dumps(stats))["splits"] == {
        "test": {"queries": 1, "judgments": 2, "relevant": 1},
        "train": {"queries": 1, "judgments": 1, "relevant": 1},
    }
    assert stats["documents"] == 3


def test_bare_names_are_looked_up_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRIEVAL_KD_DATA", str(tmp_path))
    zip_folder(write_beir(tmp_path / "whole" / "tides"), tmp_path / "tides.zip", "tides/")
    write_beir(tmp_path / "winds")
    assert open_collection("tides").spec == "tides"
    assert open_collection("winds").name == "winds"


LANGUAGES = ("en", "de", "es", "ru", "zh", "ar")
SIZES = {
    "scifact": (5183, {"train": 809, "test": 300}),
    "squad": (2067, {"train": 7588, "dev": 1161, "test": 1821}),
    "medquad": (15809, {"train": 14345}),
    "wikiqa": (26196, {"train": 873, "dev": 126, "test": 243}),
    "cranfield": (1400, {"test": 225}),
    "cacm": (3204, {"test": 52}),
    "vaswani": (11429, {"test": 93}),
    **{f"xquad-{x}": (240, {"test": 1190, "heldout": 242}) for x in LANGUAGES},
}


@pytest.mark.parametrize("name", SIZES)
def test_real_collections_have_their_known_sizes(name: str) -> None:
    path = SHARED / f"{name}.zip"
    if not path.exists():
        pytest.skip(f"{path} is not there; set RETRIEVAL_KD_DATA to a folder that has it")
    collection: Collection = open_collection(path)
    documents, splits = SIZES[name]
    assert len(collection.documents) == documents
    assert {split: len(collection.qrels(split)) for split in collection.splits} == splits
    empty = ["2 × empty document kept (first: 471)"] if name == "cranfield" else []
    assert collection.drops.summary() == empty


def test_real_zips_without_a_collection_are_refused() -> None:
    path = SHARED / "parallel.zip"
    if not path.exists():
        pytest.skip(f"{path} is not there; set RETRIEVAL_KD_DATA to a folder that has it")
    with pytest.raises(InputError, match="no collection in here"):
        open_collection(path)


def test_a_changed_cache_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A flipped bit in an Arrow file can be another text, or the end of the process."""
    folder = write_beir(tmp_path / "c")
    cached = open_collection(folder).folder
    for path in sorted(cached.rglob("*.*")):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)
        caplog.clear()
        again = open_collection(folder)
        assert [tuple(document) for document in again.documents.iterate()] == DOCUMENTS
        assert {split: again.qrels(split) for split in again.splits} == QRELS
        assert "is built again" in caplog.text, path
