"""A hybrid index finds what its parts find, fused; it is whole, and damage is found."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_sealed, sealed, write_json
from retrieval_kd.indexing.change import add_documents, change_lock, delete_documents
from retrieval_kd.indexing.index import Index
from retrieval_kd.retrieval import combine
from retrieval_kd.retrieval.combine import combine_indexes
from retrieval_kd.retrieval.fuse import floor, fuse_lists
from retrieval_kd.retrieval.hybrid import HybridIndex, verify_hybrid
from retrieval_kd.retrieval.retrieve import hybrid_run, retrieve
from tests.retrieval.hybrids import KINDS, write_indexes, write_judged

WEIGHTS = {"bm25": 0.4, "dense": 0.3, "sparse": 0.2, "multi_vector": 0.1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hybrid")


@pytest.fixture(scope="module")
def collection(tiny_collection: Path, home: Path) -> Collection:
    return open_collection(write_judged(tiny_collection, home / "judged"))


@pytest.fixture(scope="module")
def indexes(collection: Collection, tiny_encoder: Path, home: Path) -> dict[str, Path]:
    return write_indexes(Path(collection.spec), tiny_encoder, home)


@pytest.fixture(scope="module")
def hybrid(indexes: dict[str, Path], home: Path) -> HybridIndex:
    return combine_indexes(["bm25", *indexes.values()], home / "all", weights=WEIGHTS)


@pytest.fixture
def copied(hybrid: HybridIndex, tmp_path: Path) -> Path:
    shutil.copytree(hybrid.folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_fused_run_is_that_of_the_parts_runs_fused_by_hand(
    hybrid: HybridIndex, collection: Collection, indexes: dict[str, Path]
) -> None:
    queries = collection.query_texts("test")
    runs = {"bm25": retrieve(collection, queries, "bm25")}
    runs |= {kind: Index.open(indexes[kind]).search_run(queries, 100) for kind in KINDS}
    for depth in (5, 60):
        found = hybrid.search_run(queries, depth)
        for query in queries:
            lists = [runs[name].results[query] for name in WEIGHTS]
            floors = [floor(own, 100, name in ("bm25", "sparse"))
                      for name, own in zip(WEIGHTS, lists, strict=True)]  # fmt: skip
            expected = fuse_lists(lists, list(WEIGHTS.values()), "min_max", floors)
            assert found.results[query] == pytest.approx(dict(list(expected.items())[:depth]))
    texts = list(queries.values())
    assert [dict(hits) for hits in hybrid.search(texts, 5)] == list(
        hybrid.search_run(queries, 5).results.values()
    )
    assert len(hybrid) == 60 and hybrid.search_run(queries, 5).name == "all"


def test_equal_weights_of_ranks_are_reciprocal_rank_fusion(
    collection: Collection, indexes: dict[str, Path], tmp_path: Path
) -> None:
    made = combine_indexes(["bm25", indexes["dense"]], tmp_path / "ranks", how="ranks")
    queries = collection.query_texts("test")
    runs = list(made.part_runs(queries, 100).values())
    expected = hybrid_run(runs, depth=10).results
    found = made.search_run(queries, 10).results
    assert {q: list(own) for q, own in found.items()} == {q: list(o) for q, o in expected.items()}


def test_a_part_without_a_weight_is_not_searched(
    collection: Collection, indexes: dict[str, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    weights = {"bm25": 2, "dense": 0}
    made = combine_indexes(["bm25", indexes["dense"]], tmp_path / "one", weights=weights)
    assert made.weights == {"bm25": 1.0, "dense": 0.0}
    monkeypatch.setattr(Index, "search", lambda *arguments: pytest.fail("it was searched"))
    queries = collection.query_texts("test")
    expected = retrieve(collection, queries, "bm25").results
    found = made.search_run(queries).results
    assert {q: list(own) for q, own in found.items()} == {q: list(o) for q, o in expected.items()}


def test_the_folder_needs_neither_the_parts_nor_the_collection(
    collection: Collection, tiny_encoder: Path, tiny_collection: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_collection, tmp_path / "data")
    from retrieval_kd.indexing.build import build_index
    from retrieval_kd.indexing.spec import IndexSpec

    build_index(open_collection(data), str(tiny_encoder), IndexSpec(), tmp_path / "part")
    made = combine_indexes(["bm25", tmp_path / "part"], tmp_path / "whole")
    before = made.search(["sparrow nest"], 5)
    shutil.rmtree(data)
    shutil.rmtree(tmp_path / "part")
    opened = HybridIndex.open(shutil.move(tmp_path / "whole", tmp_path / "moved"))
    assert opened.search(["sparrow nest"], 5) == before
    assert opened.texts()["birds1"].title.startswith("birds")
    assert verify_hybrid(tmp_path / "moved") == []


def test_weights_are_chosen_on_a_split_and_the_manifest_says_so(
    collection: Collection, indexes: dict[str, Path], tmp_path: Path
) -> None:
    parts = ["bm25", indexes["dense"]]
    made = combine_indexes(parts, tmp_path / "fitted", split="both")
    origin = read_sealed(tmp_path / "fitted" / "manifest.json")["weights_from"]
    assert (origin["chosen"], origin["split"], origin["queries"]) == ("split", "both", 27)
    assert origin["fused"] >= max(origin["equal"], *origin["alone"].values())
    queries, qrels = collection.query_texts("both"), collection.qrels("both")
    from retrieval_kd.metrics.measures import evaluate

    runs = {"fused": made.search_run(queries), **made.part_runs(queries)}
    evaluated = evaluate(qrels, runs, ["ndcg@10"])
    expected = {"fused": origin["fused"], **origin["alone"]}
    for name, value in expected.items():
        assert evaluated.mean(name, "ndcg@10") == pytest.approx(value, abs=1e-4)


def test_without_judgments_sentences_of_the_documents_choose(
    indexes: dict[str, Path], tmp_path: Path
) -> None:
    made = combine_indexes(["bm25", indexes["dense"]], tmp_path / "cloze", weights="cloze")
    origin = made.manifest["weights_from"]
    assert origin["chosen"] == "cloze" and origin["queries"] == 60
    assert sum(made.weights.values()) == pytest.approx(1)
    assert not list((tmp_path / "cloze").glob(".*"))


def test_wrong_choices_are_refused_before_a_model_is_loaded(
    indexes: dict[str, Path], hybrid: HybridIndex, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("retrieval_kd.indexing.index.load_retriever", lambda *a, **k: 1 / 0)
    dense, out = indexes["dense"], tmp_path / "out"

    def refused(match: str, *parts: Any, **options: Any) -> None:
        with pytest.raises(InputError, match=match):
            combine_indexes(list(parts), out, **options)
        assert not out.exists() and not list(tmp_path.glob(".out.*"))

    refused("of 1 part", "bm25")
    refused("two parts are called dense", dense, f"dense={indexes['sparse']}")
    refused("an index is given twice", dense, f"again={dense}")
    refused("cannot be the name of a part", f"documents={dense}", "bm25")
    refused("no finished index here", tmp_path / "nowhere", "bm25")
    refused("this is a hybrid index", hybrid.folder, "bm25")
    refused("no weight for dense", "bm25", dense, weights={"bm25": 1})
    refused("a weight for dence, which is no part.*dense", "bm25", dense,
            weights={"bm25": 1, "dence": 1})  # fmt: skip
    refused("not be negative|not negative", "bm25", dense, weights={"bm25": -1, "dense": 1})
    refused("one must be above 0", "bm25", dense, weights={"bm25": 0, "dense": 0})
    refused("no weights are called", "bm25", dense, weights="best")
    refused("no fusion is called", "bm25", dense, how="sum")
    refused("the test queries choose.*--allow-test", "bm25", dense, split="test")
    refused("no split 'devv'", "bm25", dense, split="devv")
    refused("both weights and a split", "bm25", dense, split="both", weights="cloze")
    refused("no collection", "bm25", "bm25-lucene")
    with pytest.raises(InputError, match="something other than a hybrid index"):
        combine_indexes(["bm25", dense], indexes["sparse"])


def test_parts_of_other_documents_are_one_error_with_counts_and_examples(
    indexes: dict[str, Path], tmp_path: Path
) -> None:
    other = shutil.copytree(indexes["dense"], tmp_path / "other")
    from retrieval_kd.data.texts import Document

    delete_documents(other, ["birds1", "birds2"])
    add_documents(other, [Document("new1", "New", "sparrow")])
    with pytest.raises(InputError, match=r"sparse has 60 documents and other 59; of these, "
                       r"2 only in sparse \(such as birds1, birds2\) and 1 only in other \(such "
                       r"as new1\)"):  # fmt: skip
        combine_indexes(["bm25", indexes["sparse"], other], tmp_path / "out")
    made = combine_indexes(["bm25", other], tmp_path / "changed")  # the changed documents
    assert len(made) == 59 and made.texts()["new1"].title == "New"
    assert "new1" in dict(made.search(["new sparrow"], 60)[0]) and verify_hybrid(made.folder) == []


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "bm25/data.csc.index.npy", "bm25/vocab.index.json", "documents/texts.arrow",
     "dense/index.faiss", "dense/manifest.json", "sparse/manifest.json"],
)  # fmt: skip
def test_a_flipped_bit_is_found_on_opening_and_by_verify(copied: Path, name: str) -> None:
    path = copied / name if name == "manifest.json" else copied / "content-000000" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError):
        HybridIndex.open(copied)
    if name != "manifest.json":
        assert verify_hybrid(copied)


@pytest.mark.parametrize("name", ["documents/texts.arrow", "dense/index.faiss", "bm25/seal.json"])
def test_no_error_says_that_a_part_is_built_again_alone(copied: Path, name: str) -> None:
    path = copied / "content-000000" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="restore the folder, or delete it and combine the parts"):
        HybridIndex.open(copied)


def test_a_part_that_was_replaced_or_lost_is_found(
    copied: Path, indexes: dict[str, Path], tiny_dot_encoder: Path
) -> None:
    from retrieval_kd.indexing.build import build_index
    from retrieval_kd.indexing.spec import IndexSpec

    part, content = copied / "content-000000" / "dense", copied / "content-000000"
    shutil.rmtree(part)
    with pytest.raises(InputError, match="lacks this part"):
        HybridIndex.open(copied)
    source = Index.open(indexes["dense"]).collection()
    build_index(source, str(tiny_dot_encoder), IndexSpec(), content / "dense")
    with pytest.raises(InputError, match="the part dense is not the one that was combined"):
        HybridIndex.open(copied)
    assert "not the one" in verify_hybrid(copied)[0]


def test_another_version_of_the_text_analysis_is_refused(copied: Path) -> None:
    manifest = read_sealed(copied / "manifest.json")
    manifest["parts"][0]["analysis"] -= 1
    write_json(copied / "manifest.json", sealed(manifest))
    with pytest.raises(InputError, match=r"of the text analysis.*combine the parts again"):
        HybridIndex.open(copied)


def test_an_index_of_one_model_says_how_to_open_a_hybrid_one(hybrid: HybridIndex) -> None:
    with pytest.raises(InputError, match=r"open it with HybridIndex.open"):
        Index.open(hybrid.folder)
    with pytest.raises(InputError, match=r"no part with a model is called x.*name one of: dense"):
        HybridIndex.open(hybrid.folder, models={"x": "y"})
    assert json.loads((hybrid.folder / "manifest.json").read_text())["kind"] == "hybrid"


def test_a_killed_combination_leaves_the_old_folder_or_the_new_one(
    indexes: dict[str, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    out, parts = tmp_path / "out", ["bm25", indexes["dense"]]
    copy, check, seal = combine.copy_tree, combine.check_files, combine.sealed
    steps = {"copy_tree": copy, "check_files": check, "sealed": seal}

    def killed(name: str) -> None:
        child = os.fork()
        if child == 0:
            setattr(combine, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
            combine_indexes(parts, out, weights={"bm25": 0.9, "dense": 0.1})
            os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])

    for name in steps:
        killed(name)
        assert not out.exists()
    combine_indexes(parts, out)
    for name in steps:
        killed(name)
        assert HybridIndex.open(out).weights == {"bm25": 0.5, "dense": 0.5}
    assert combine_indexes(parts, out, weights={"bm25": 1, "dense": 3}).weights["dense"] == 0.75


def test_an_index_that_is_changed_while_it_is_copied_is_not_combined(
    indexes: dict[str, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    other, copy = shutil.copytree(indexes["dense"], tmp_path / "other"), combine.copy_tree

    def late(source: Path, target: Path, names: Any) -> None:
        delete_documents(source, ["birds1"])
        copy(source, target, names)

    monkeypatch.setattr(combine, "copy_tree", late)
    with pytest.raises(InputError, match="was changed while it was combined"):
        combine_indexes(["bm25", other], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_an_index_that_is_being_changed_is_not_replaced(
    indexes: dict[str, Path], copied: Path
) -> None:
    before = (copied / "manifest.json").read_bytes()
    with change_lock(copied), pytest.raises(InputError, match="another command is changing"):
        combine_indexes(["bm25", indexes["dense"]], copied)
    assert (copied / "manifest.json").read_bytes() == before
    assert len(combine_indexes(["bm25", indexes["dense"]], copied).parts) == 2


def test_runs_name_no_document_that_is_the_query(
    hybrid: HybridIndex, collection: Collection
) -> None:
    queries = {"birds1": collection.documents["birds1"].full}
    kept = hybrid.search_run(queries, 60, exclude_self=False)
    left_out = hybrid.search_run(queries, 60)
    assert "birds1" in kept.results["birds1"] and "birds1" not in left_out.results["birds1"]
    assert isinstance(left_out, Run) and len(left_out.results["birds1"]) == 59
