"""`rkd index tune`: the specification that it writes builds an index within the budget."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml

from retrieval_kd.indexing import tune as indexing_tune
from retrieval_kd.indexing.spec import load_spec

FACTORIES = ("--factory", "Flat", "--factory", "SQ8", "--factory", "IVF2,SQ8")


@pytest.fixture
def data(tiny_collection: Path, tiny_encoder: Path) -> tuple[Any, ...]:
    return "index", "tune", "--collection", tiny_collection, "--model", tiny_encoder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Sixty queries, one a line."""
    words = ["sparrow", "wing", "comet", "orbit", "violin", "chord", "anchor", "mast"]
    lines = [f"{one} {other} {n}" for n, one in enumerate(words) for other in words]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    return tmp_path / "log.txt"


def test_the_specification_is_within_the_budget_and_builds_an_index(
    data: Any, log: Path, tmp_path: Path, command: Any
) -> None:
    out, tried, picture = (tmp_path / name for name in ("my.yaml", "tried.json", "front.svg"))
    code, said = command(
        *data, "--queries", log, "--recall", 0.5, "--max-bytes", 100, *FACTORIES, "--out", out,
        "--json", tried, "--picture", picture,
    )  # fmt: skip
    assert code == 0 and "on queries that did not choose" in said and "Factory" in said, said
    spec = load_spec(out)
    assert spec.factory in ("SQ8", "IVF2,SQ8")
    facts = json.loads(tried.read_text())
    assert facts["chosen"]["factory"] == spec.factory and facts["chosen"]["bytes"] <= 100
    assert {point["factory"] for point in facts["points"]} == {"Flat", "SQ8", "IVF2,SQ8"}
    assert ElementTree.fromstring(picture.read_text()).tag == "{http://www.w3.org/2000/svg}svg"
    assert "--paper: #" in picture.read_text() and "bytes" not in yaml.safe_load(out.read_text())
    code, said = command("index", *data[2:], "--spec", out, "--out", tmp_path / "ix")
    assert code == 0 and "60 documents" in said, said


def test_what_may_be_lost_of_ndcg_is_measured_on_judged_queries(
    data: Any, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--split", "train", "--ndcg-loss", 0, "--out", tmp_path / "o.yaml")
    code, said = command(*data, *options)
    assert code == 2 and "18 queries cannot choose an index and check it" in said, said
    monkeypatch.setattr(indexing_tune, "FEWEST_QUERIES", 4)
    code, said = command(*data, *options, "--factory", "Flat")
    assert code == 0 and "nDCG@10 gained 0.0000" in said, said


def test_a_query_without_a_relevant_document_cannot_lose_ndcg(
    tiny_collection: Path, tiny_encoder: Path, tmp_path: Path, command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(indexing_tune, "FEWEST_QUERIES", 4)
    folder = shutil.copytree(tiny_collection, tmp_path / "some")
    file = folder / "qrels" / "train.tsv"
    head, first, *rest = file.read_text().splitlines()
    query = first.split("\t")[0]
    none = [row if row.split("\t")[0] != query else row[: row.rindex("\t")] + "\t0" for row in rest]
    file.write_text("\n".join([head, first[: first.rindex("\t")] + "\t0", *none, ""]))
    code, said = command(
        "index", "tune", "--collection", folder, "--model", tiny_encoder, "--split", "train",
        "--ndcg-loss", 0, "--factory", "Flat", "--out", tmp_path / "o.yaml",
    )  # fmt: skip
    assert code == 0 and "1 × query without a relevant document" in said, said


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--recall", 0.9, "--ndcg-loss", 0.1), "both --recall and --ndcg-loss"),
        (("--ndcg-loss", 0.1), "--ndcg-loss needs judged queries"),
        (("--factory", "IDMap,Flat"), "leave IDMap out"),
        (("--split", "train", "--queries", "q.txt"), "both --split and --queries"),
        (("--split", "nowhere"), "no split 'nowhere'"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_encoded(
    data: Any, tmp_path: Path, command: Any, options: Any, problem: str
) -> None:
    code, said = command(*data, *options, "--out", tmp_path / "o.yaml")
    assert code == 2 and problem in said, said
    assert not (tmp_path / "o.yaml").exists()
