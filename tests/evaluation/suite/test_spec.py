"""Suites name collections that exist, with their papers' measures, and find what is on the disk."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import ir_datasets
import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.suite.spec import (
    Located,
    Member,
    average_units,
    find_members,
    load_suite,
    locate,
    offline,
    suite_names,
)
from retrieval_kd.retrieval.analysis import Analysis, Analyzer

SUITES = suite_names()
MEMBERS = [(s, name, member) for s in SUITES for name, member in load_suite(s).collections.items()]


def test_all_suites_are_there():
    years = [f"trec-dl-{year}" for year in range(2019, 2024)]
    wanted = ["beir", "bright", "local", "lotte", "miracl", "msmarco-dev", "nano-beir"]
    assert [*wanted, "trec-covid", *years] == SUITES


@pytest.mark.parametrize(("suite", "name", "member"), MEMBERS)
def test_every_ir_datasets_id_is_in_its_registry_with_judgments(suite, name, member):
    dataset = ir_datasets.load(member.irds)
    assert dataset.has_docs() and dataset.has_queries() and dataset.has_qrels()


@pytest.mark.parametrize(
    ("suite", "measures", "depth"),
    [
        ("msmarco-dev", ["mrr@10", "recall@1000"], 1000),
        ("trec-dl-2019", ["ndcg@10", "map-l2", "recall@1000-l2"], 1000),
        ("trec-dl-2023", ["ndcg@10", "map-l2", "recall@1000-l2"], 1000),
        ("beir", ["ndcg@10", "recall@100"], 100),
        ("lotte", ["hit_rate@5", "recall@100"], 100),
    ],
)
def test_measures_are_those_the_papers_report(suite, measures, depth):
    loaded = load_suite(suite)
    assert (loaded.measures, loaded.depth) == (measures, depth)


def test_beir_averages_over_its_fourteen_zero_shot_collections():
    beir = load_suite("beir").collections
    units = average_units(beir, beir)
    assert len(units) == 14 and "msmarco" not in units
    assert len(units["cqadupstack"]) == 12


def test_every_language_has_a_stemmer_or_none():
    for member in load_suite("miracl").collections.values():
        assert list(Analyzer(Analysis(stemmer=member.language)).documents(["a word"]))


def test_an_unknown_suite_and_a_wrong_one_are_named(tmp_path):
    with pytest.raises(InputError, match=r"unknown suite 'bier'.*beir, bright"):
        load_suite("bier")
    path = tmp_path / "mine.yaml"
    path.write_text("name: Mine\nmeasures: [ndgc@10]\ncollections: {a: {}}\n")
    with pytest.raises(InputError, match="write ndcg@10"):
        load_suite(path)
    path.write_text("name: Mine\nmeasures: [ndcg@10]\ncollections: {a: {irsd: x}}\n")
    with pytest.raises(InputError, match="did you mean 'irds'"):
        load_suite(path)
    path.write_text("name: Mine\nmeasures: [ndcg@10]\n")
    with pytest.raises(InputError, match="without collections"):
        load_suite(path)


@pytest.fixture
def data(tmp_path, tiny_collection) -> Path:
    """A folder collection, a zipped one, and things that are none."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_collection, folder / "unpacked")
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        for file in sorted(tiny_collection.rglob("*")):
            if file.is_file() and file.name not in ("test.tsv", "train.tsv"):
                archive.write(file, f"zipped/{file.relative_to(tiny_collection)}")
    shutil.copy(folder / "zipped.zip", folder / "unpacked.zip")
    with zipfile.ZipFile(folder / "pairs.zip", "w") as archive:
        archive.writestr("pairs/pairs.tsv", "a\tb\n")
    (folder / ".hidden").mkdir()
    (folder / "README.md").write_text("about")
    return folder


def test_a_local_suite_is_what_the_folder_holds(data):
    members = find_members(load_suite("local"), data)
    assert list(members) == ["pairs", "unpacked", "zipped"]
    unpacked, zipped = (locate(n, members[n], data) for n in ("unpacked", "zipped"))
    assert unpacked.split == "test" and unpacked.spec == str(data / "unpacked")
    assert zipped.split == "dev" and zipped.splits == ("dev",), "the split that it has"
    with pytest.raises(InputError, match=r"no corpus\.jsonl"):
        locate("pairs", members["pairs"], data)


def test_a_folder_that_is_a_collection_is_a_suite_of_one(data):
    assert list(find_members(load_suite("local"), data / "unpacked")) == ["unpacked"]
    with pytest.raises(InputError, match="no such folder"):
        find_members(load_suite("local"), data / "nothing")
    with pytest.raises(InputError, match="no folder or zip"):
        find_members(load_suite("local"), data / ".hidden")


def test_a_beir_folder_comes_before_ir_datasets_and_needs_the_split(data):
    found = locate("scifact", Member(irds="beir/scifact/test", beir="unpacked"), data)
    assert found.spec == str(data / "unpacked")
    with pytest.raises(InputError, match=r"qrels/test\.tsv"):
        locate("scifact", Member(irds="beir/scifact/test", beir="zipped"), data)


def test_missing_collections_are_named_with_their_place_and_nothing_is_downloaded(
    data, private_home, capfd
):
    with pytest.raises(InputError) as refused:
        locate("scifact", Member(irds="beir/scifact/test"), data)
    for part in ("--download", "beir/scifact/test", str(data / "scifact"), "ir_datasets"):
        assert part in str(refused.value)
    assert capfd.readouterr().err == "", "ir_datasets does not speak of downloads"
    with pytest.raises(InputError, match=re.escape(str(data / "mine"))):
        locate("mine", Member(), data)
    with pytest.raises(InputError, match="does not know"):
        locate("new", Member(irds="beir/not-yet"), data)


def test_offline_ends_with_its_block():
    before = ir_datasets.lazy_libs.requests
    with pytest.raises(ConnectionError), offline():
        ir_datasets.lazy_libs.requests()
    assert ir_datasets.lazy_libs.requests is before


def test_an_ir_datasets_collection_that_is_here_is_found(tmp_path):
    (tmp_path / "docs.tsv").write_text("d1\tthe moon\n")
    (tmp_path / "queries.tsv").write_text("q1\twhy tides\n")
    (tmp_path / "qrels").write_text("q1 0 d1 1\n")
    made = ir_datasets.create_dataset(
        docs_tsv=str(tmp_path / "docs.tsv"),
        queries_tsv=str(tmp_path / "queries.tsv"),
        qrels_trec=str(tmp_path / "qrels"),
    )
    ir_datasets.registry.register("rkd-tides", made)
    found = locate("tides", Member(irds="rkd-tides"), tmp_path / "none")
    assert found == Located("tides", "irds:rkd-tides", "test", ("test",))
    assert found.open().qrels(found.split) == {"q1": {"d1": 1}}
    (tmp_path / "docs.tsv").unlink()
    with pytest.raises(InputError, match=r"docs\.tsv"):
        locate("tides", Member(irds="rkd-tides"), tmp_path / "none")
