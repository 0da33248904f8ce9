"""A run of an inference-free sparse student, on documents alone, and `rkd train` of another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SparseEncoder

from retrieval_kd.config.run import load_config
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import read_run
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_sealed
from retrieval_kd.pipeline.plan import plan
from retrieval_kd.schema import read_extended
from retrieval_kd.students.inference_free import query_table
from tests.pipeline.shrinking import CONFIGS, shrunk, written


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, tiny_collection, tiny_encoder) -> Path:
    """The shipped student, and one of two stages that is merged with its start."""
    encoder, own = str(tiny_encoder), read_extended(CONFIGS / "inference_free.yaml")
    train = {"steps": 3, "batch_queries": 6, "eval_steps": 3, "max_tokens": 32}
    config = shrunk(
        "inference_free.yaml",
        tiny_collection,
        tiny_encoder,
        splits=own["splits"],
        train=own["train"] | train,
        teacher={**own["teacher"], "fuse_with": ["bm25", f"dense:{encoder}"]},
        student=own["student"] | {"base": encoder, "layers": [0, 3], "max_length": 32},
    )
    config["unlabelled"]["limit"] = 20
    config["students"]["staged"] = {
        "student": {"options": {"activation": "log1p_relu"}},
        "stages": [{"objective": "kl@batch"}, {"objective": "margin_mse", "refresh": 5}],
        "merge": {"with": "start"},
    }
    return written(config, tmp_path_factory.mktemp("inference-free"))


@pytest.mark.parametrize("name", ["sparse-seed0", "staged-seed0-merged"])
def test_its_run_is_ranked_as_plain_sentence_transformers_ranks(finished, name):
    out, collection = Path(finished.out), open_collection(finished.collection)
    model = SparseEncoder(str(out / "students" / name), device="cpu")
    queries = collection.query_texts("test")
    texts = [document.full for document in collection.documents.iterate()]
    encoded = model.encode_query([*queries.values()]).to_dense()
    scores = encoded @ model.encode_document(texts).to_dense().T
    searched = read_run(out / "runs" / f"{name.removesuffix('-merged')}.trec").results
    for row, query in zip(scores, queries, strict=True):
        best = next(iter(searched[query]))
        found = float(row[collection.documents.position(best)])
        assert found == pytest.approx(float(row.max()), rel=0.02)


def test_its_table_stays_through_stages_and_merging(finished):
    folders = ["sparse-seed0", "staged-seed0-stage1", "staged-seed0", "staged-seed0-merged"]
    students = [Path(finished.out) / "students" / name for name in folders]
    first, *others = [query_table(SparseEncoder(str(f), device="cpu")).weight for f in students]
    assert all(torch.equal(first, other) for other in others)


def test_its_costs_and_its_index_say_what_they_are(finished):
    out = Path(finished.out)
    results = json.loads((out / "results.json").read_text())
    for name in ("sparse", "staged"):
        costs = results["costs"][name]
        assert costs["layers"] == 2 and costs["dimensions"] > 100 and costs["latency_ms_p50"] > 0
        manifest = read_sealed(out / "indexes" / f"{name}-seed0" / "manifest.json")
        assert manifest["metric"] == "dot" and manifest["dimensions"] == costs["dimensions"]
        assert manifest["words_per_document"] > 0
    assert plan(finished).todo() == []


def test_the_command_line_trains_indexes_searches_evaluates_and_merges_one(
    finished, tiny_collection, tiny_encoder, tmp_path, command
):
    data = ("--collection", tiny_collection)
    told = ("train", *data, "--candidates", tmp_path / "train.trec", "--objective", "infonce",
            "--student", tiny_encoder, "--layers", "0,3", "--steps", 2,
            "--query", "idf", "--out", tmp_path / "one")  # fmt: skip
    code, text = command("retrieve", *data, "--split", "train", "--out", tmp_path / "train.trec")
    assert code == 0, text
    code, text = command(*told)
    assert code == 2 and "a dense student cannot have `query: idf`" in text
    code, text = command(*told, "--kind", "sparse")
    assert code == 0 and "2 layers" in text, text
    one, free = str(tmp_path / "one"), str(tmp_path / "one-with-plain")
    again = ("train", *data, "--candidates", tmp_path / "train.trec", "--objective", "infonce",
             "--student", one, "--kind", "sparse", "--steps", 1, "--out", free)  # fmt: skip
    code, text = command(*again)
    assert code == 2 and "--query idf" in text
    spec = Path(__file__).parents[2] / "indexes" / "sparse.yaml"
    built = ("--model", one, "--spec", spec, "--out", tmp_path / "index")
    code, text = command("index", *data, *built)
    assert code == 0, text
    code, text = command("search", "--index", tmp_path / "index", "sparrow nest")
    assert code == 0 and "birds" in text
    code, text = command("evaluate", *data, "--split", "test", "--with", one)
    assert code == 0, text
    other = Path(finished.out) / "students" / "sparse-seed0"
    code, text = command("merge", one, other, "--out", tmp_path / "both")
    assert code == 0, text
    both = SparseEncoder(str(tmp_path / "both"), device="cpu")
    assert query_table(both) is not None


def test_the_shipped_configuration_can_be_read():
    config = load_config(CONFIGS / "inference_free.yaml")
    students = {name: config.student_for(training) for name, training in config.students.items()}
    assert [(s.kind, s.query) for s in students.values()] == [("sparse", "idf")]


def test_another_kind_and_objectives_on_states_are_refused_when_it_is_read(config_file):
    with pytest.raises(InputError, match="dense student cannot have `query: idf`"):
        load_config(config_file, ["students.sparse.student={kind: dense}"])
    with pytest.raises(InputError, match="queries have none"):
        load_config(config_file, ["students.sparse.objective=[{name: hidden_states, teacher: m}]"])
