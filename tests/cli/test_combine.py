"""`rkd index combine`, and the commands that take what it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retrieval_kd.data.runs import read_run
from retrieval_kd.retrieval.hybrid import HybridIndex
from tests.retrieval.hybrids import write_judged


@pytest.fixture
def parts(tiny_collection: Path, tiny_encoder: Path, tmp_path: Path, command: Any) -> list[Any]:
    data = write_judged(tiny_collection, tmp_path / "data")
    options = ("--collection", data, "--model", tiny_encoder, "--out", tmp_path / "ix")
    code, said = command("index", *options)
    assert code == 0, said
    return ["--part", "bm25", "--part", tmp_path / "ix"]


def test_a_hybrid_index_from_making_it_to_changing_it(
    parts: list[Any], tmp_path: Path, command: Any
) -> None:
    hybrid = tmp_path / "hybrid"
    code, said = command("index", "combine", *parts, "--split", "both", "--out", hybrid)
    assert code == 0 and "nDCG@10 on 27 queries of both: bm25 alone 0." in said, said
    assert "on halves that did not choose: fused" in said, said
    assert "hybrid: 60 documents; weights: bm25" in said, said

    code, said = command("search", "--index", hybrid, "sparrow nest", "--depth", 2)
    assert code == 0 and "1. birds" in said and "[birds" in said, said
    queries, run = tmp_path / "queries.jsonl", tmp_path / "run.trec"
    queries.write_text('{"_id": "a", "text": "sparrow nest"}\n{"_id": "b", "text": "violin"}\n')
    code, said = command("search", "--index", hybrid, "--queries", queries, "--out", run)
    assert code == 0 and "run.trec: 2 queries" in said, said
    expected = HybridIndex.open(hybrid).search_run({"a": "sparrow nest", "b": "violin"}, 10)
    assert read_run(run) == expected

    new = tmp_path / "new.jsonl"
    new.write_text(json.dumps({"_id": "new1", "title": "Newcomer", "text": "otter"}) + "\n")
    code, said = command("index", "add", "--index", hybrid, "--documents", new)
    assert code == 0 and "1 document added, 0 replaced; 61 documents in the index" in said, said
    code, said = command("search", "--index", hybrid, "newcomer otter", "--depth", 1)
    assert code == 0 and "Newcomer  [new1]" in said, said
    code, said = command("index", "delete", "--index", hybrid, "new1", "birds1")
    assert code == 0 and "2 documents deleted; 59 documents in the index" in said, said
    code, said = command("index", "compact", "--index", hybrid)
    assert code == 0 and "compacted; 59 documents" in said, said
    assert command("index", "verify", "--index", hybrid) == (0, f"{hybrid}: all is well\n")
    path = next(hybrid.glob("content-*/bm25/data*.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    code, said = command("index", "verify", "--index", hybrid)
    assert code == 1 and "the part bm25 is damaged: " in said and "hybrid: 1 problem" in said, said


def test_given_weights_and_mistakes(parts: list[Any], tmp_path: Path, command: Any) -> None:
    hybrid = tmp_path / "hybrid"
    weighted = ("index", "combine", *parts, "--out", hybrid, "--weights")
    code, said = command(*weighted, "bm25=.4,ix=.6")
    assert code == 0 and "weights: bm25 0.4, ix 0.6" in said and "nDCG" not in said, said
    code, said = command(*weighted, "bm25=.4")
    assert code == 2 and "no weight for ix. To fix: give each part one: bm25=1,ix=1" in said, said
    code, said = command(*weighted, "bm25=x,ix=1")
    assert code == 2 and "cannot read the weight 'bm25=x'" in said, said
    code, said = command(*weighted, "bm25=1,bm25=1")
    assert code == 2 and "two weights for bm25" in said, said
    code, said = command(*weighted, "equal", "--split", "both")
    assert code == 2 and "both --weights and --split" in said, said
    code, said = command("index", "combine", *parts, "--out", hybrid, "--split", "test")
    assert code == 2 and "add --allow-test" in said, said

    code, said = command("search", "--index", hybrid, "--index", tmp_path / "ix", "nest")
    assert code == 2 and "a hybrid index is not searched with others" in said, said
    code, said = command("search", "--index", hybrid, "nest", "--search", "nprobe=2")
    assert code == 2 and "--search is for an index of one model" in said, said
    code, said = command("search", "--index", hybrid, "nest", "--model", "x")
    assert code == 2 and "write PART=MODEL" in said, said
    code, said = command("index", "combine", *parts, "--out", tmp_path / "ix")
    assert code == 2 and "--out would overwrite what --part reads" in said, said
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    code, said = command("index", "combine", *parts, "--out", tmp_path / "other")
    assert code == 2 and "holds something other than a hybrid index" in said, said
