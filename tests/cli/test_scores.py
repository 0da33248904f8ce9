"""`rkd scores inspect|export|import|verify`, as a user types them."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from retrieval_kd.cli.scores import scores_app
from retrieval_kd.data.runs import read_run
from retrieval_kd.errors import InputError
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.shards import shard_paths
from tests.store.test_scores import KEY, add

PAIRS = {("q1", "d1"): 0.1, ("q1", "d2"): -7.25, ("q2", "d1"): 3e-05}


@pytest.fixture
def store(tmp_path):
    store = ScoreStore(tmp_path / "store")
    add(store, PAIRS)
    return store


def run(*arguments, fails: bool = False) -> str:
    result = CliRunner().invoke(scores_app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == (1 if fails else 0), result.output
    return result.output


def test_inspect_counts_pairs_queries_and_candidates(store):
    add(store, {("q1", "d1"): 9.0})  # a contradiction: a row, but no pair
    (summary,) = json.loads(run("inspect", store.path, "--json"))
    assert (summary["pairs"], summary["rows"], summary["queries"]) == (3, 4, 2)
    assert summary["candidates"] == {"min": 1, "median": 1.5, "max": 2}
    assert summary["scores"]["mean"] == pytest.approx((0.1 - 7.25 + 3e-05) / 3)
    assert (summary["scores"]["min"], summary["shards"]) == (-7.25, 2)
    assert (summary["texts"], summary["dtype"], summary["max_length"]) == ("known", "bfloat16", 256)
    assert summary["bytes"] == sum(p.stat().st_size for p in shard_paths(store.folder(KEY)))
    table = run("inspect", store.path)
    assert "teachers/big" in table and KEY.fingerprint in table and "1 … 1.5 … 2" in table


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_an_export_imported_again_is_the_same_bit_for_bit(store, tmp_path, suffix):
    out = tmp_path / f"scores{suffix}"
    assert "3 scores" in run("export", store.path, "--out", out, "--teacher", "teachers/big")
    text = run("import", out, "--store", tmp_path / "copy", "--model", "copied")
    assert "3 scores stored" in text and "texts unknown" in text
    copy = ScoreStore(tmp_path / "copy")
    columns = ["query_id", "document_id", "score"]
    exported = copy.read(copy.resolve("copied")).select(columns)
    assert exported.equals(store.read(KEY).select(columns))
    (summary,) = json.loads(run("inspect", copy.path, "--json"))
    assert summary["texts"] == "unknown"


def test_a_run_is_exported_best_first(store, tmp_path):
    run("export", store.path, "--out", tmp_path / "scores.trec")
    exported = read_run(tmp_path / "scores.trec")
    assert list(exported.results["q1"]) == ["d1", "d2"] and exported.name == "big"


def test_an_exports_parquet_carries_the_digests(store, tmp_path):
    run("export", store.path, "--out", tmp_path / "s.parquet")
    assert pq.read_table(tmp_path / "s.parquet").equals(store.read(KEY))


def test_export_asks_which_teacher_and_which_format(store, tmp_path):
    with pytest.raises(InputError, match=r"cannot be exported to \.csv.*\.tsv"):
        run("export", store.path, "--out", tmp_path / "s.csv")
    add(store, PAIRS, replace(KEY, model="other", digest="cd"))
    with pytest.raises(InputError, match=r"several teachers.*teachers/big"):
        run("export", store.path, "--out", tmp_path / "s.tsv")
    assert not (tmp_path / "s.tsv").exists()


def test_import_with_a_collection_reports_what_it_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "first"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "who?"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (tmp_path / "s.tsv").write_text("q1\td1\t2.5\nq1\td7\t1.5\n")
    options = ("--store", tmp_path / "store", "--model", "t", "--collection", folder)
    text = run("import", tmp_path / "s.tsv", *options)
    assert "1 scores stored" in text
    assert "1 × document ID not in the collection (first: d7)" in text
    (summary,) = json.loads(run("inspect", tmp_path / "store", "--json"))
    assert (summary["texts"], summary["pairs"]) == ("known", 1)


def test_verify_exits_1_with_file_row_and_remedy(store):
    assert "all is well" in run("verify", store.path)
    add(store, {("q1", "d1"): 9.0})
    first, second = shard_paths(store.folder(KEY))
    text = run("verify", store.path, fails=True)
    assert f"{second}: row 0: score 9.0" in text and "To fix" in text and "1 problems" in text
    first.write_bytes(first.read_bytes()[:-1])
    assert str(first) in run("verify", store.path, "--teacher", "teachers/big", fails=True)


def test_verify_can_clean_up_after_killed_writers(store):
    leftover = store.folder(KEY) / ".shard-000002-00.parquet.x1.part"
    leftover.touch()
    assert "removed" in run("verify", store.path, "--clean") and not leftover.exists()


def test_a_missing_store_is_one_error(tmp_path):
    for command in ("inspect", "verify"):
        with pytest.raises(InputError, match="no score store"):
            run(command, tmp_path / "none")


def test_names_are_shown_as_they_are_and_several_teachers_are_told_apart(store, tmp_path):
    """`:package:` is the name of an emoji; copied from the table, it must name the teacher."""
    other = replace(KEY, model="dense:package:mini", digest="ff00")
    with store.writer(other) as writer:
        writer.add(["q1"], ["d1"], ["a" * 32], ["b" * 32], [1.0])
    assert "dense:package:mini" in run("inspect", store.path).replace("\n", "")
    with pytest.raises(InputError, match="has several teachers") as raised:
        run("export", store.path, "--out", tmp_path / "scores.tsv")
    assert "--teacher" in str(raised.value) and other.fingerprint in str(raised.value)
