"""One run trains a dense, a sparse and a multi-vector student from the same stored scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder

from retrieval_kd.config.run import load_config
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.index import Index
from retrieval_kd.pipeline.plan import plan
from tests.pipeline.shrinking import CONFIGS, shrunk, written

LOADED_BY: dict[str, Any] = {
    "dense": SentenceTransformer,
    "sparse": SparseEncoder,
    "multivector": MultiVectorEncoder,
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, tiny_collection, tiny_encoder) -> Path:
    config = shrunk("kinds.yaml", tiny_collection, tiny_encoder)
    config["students"]["multivector"]["student"]["dimensions"] = 16
    return written(config, tmp_path_factory.mktemp("kinds"))


def test_each_kind_has_its_quality_size_and_latency_in_the_results(finished):
    results = json.loads((Path(finished.out) / "results.json").read_text())
    for name in LOADED_BY:
        assert 0 < results["systems"][name]["ndcg@10"]["mean"] <= 1
        costs = results["costs"][name]
        assert costs["layers"] == 2 and costs["parameters"] > 0
        assert costs["index_bytes"] > 0 and costs["latency_ms_p50"] > 0
    assert results["costs"]["multivector"]["dimensions"] == 16
    assert results["costs"]["sparse"]["dimensions"] > 100  # words of the vocabulary
    assert "multi-vector" in (Path(finished.out) / "report.html").read_text()


def test_each_kind_learnt_from_the_same_scores_and_loads_in_plain_sentence_transformers(finished):
    out = Path(finished.out)
    assert len(list((out / "scores").glob("*/shard-*.parquet"))) > 0
    for name, plain in LOADED_BY.items():
        student = plain(str(out / "students" / f"{name}-seed0"), device="cpu")
        assert student.encode_query(["sparrow nest"]) is not None
        index = Index.open(
            out / "indexes" / f"{name}-seed0", str(out / "students" / f"{name}-seed0")
        )
        assert len(index.search(["sparrow nest"], 3)[0]) == 3


def test_a_finished_run_does_nothing_again(finished):
    assert plan(finished).todo() == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("students.sparse.student={kind: late}", "kind"),
        ("students.sparse.student={kindd: sparse}", "did you mean 'kind'"),
        ("students.sparse.student={kind: sparse, dimensions: 8}", "no `dimensions` to choose"),
        ("students.dense.student={max_length: 16}", "max_length is the common one"),
    ],
)
def test_a_wrong_start_is_one_clear_sentence(config_file, override, message):
    with pytest.raises(InputError, match=message):
        load_config(config_file, [override])


def test_the_shipped_configuration_can_be_read():
    config = load_config(CONFIGS / "kinds.yaml")
    kinds = [config.student_for(training).kind for training in config.students.values()]
    assert kinds == ["dense", "sparse", "multi_vector"]
