"""Students that start from another student of the same run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval_kd.config.run import load_config
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_sealed
from retrieval_kd.models.load import load_encoder, model_digest
from retrieval_kd.pipeline.plan import plan
from retrieval_kd.pipeline.train_stored import train_stored
from tests.pipeline.shrinking import shrunk, written


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, tiny_collection, tiny_encoder) -> Path:
    """Two layers that imitate four, a residual student of them, and its table of queries."""
    config = shrunk(
        "adapt.yaml",
        tiny_collection,
        tiny_encoder,
        first_stage={"with": "bm25", "depth": 12},
        splits={"train": None, "dev": None, "test": "test"},
        student={"base": str(tiny_encoder), "max_length": 32},
        seeds=[0, 1],
    )
    config["teacher"] = {"fuse_with": ["bm25"]}
    config["unlabelled"]["limit"] = 20
    quick = {"steps": 3, "batch_queries": 8}
    config["students"] = {
        "half": {
            "student": {"kind": "dense", "layers": [0, 3]},
            "objective": [{"name": "kl", "candidates": "batch"}],
            "train": {**quick, "learning_rate": 1e-2},
        },
        "residual": {
            "student": {"kind": "residual", "start": "half", "dimensions": 64},
            "objective": "kl",
            "train": quick,
        },
        "table": {
            "student": {"kind": "asymmetric", "start": "residual"},
            "objective": "kl",
            "train": quick,
        },
    }
    config["compare"] = ["residual", "encoder"]
    return written(config, tmp_path_factory.mktemp("start"))


def test_each_starts_from_the_student_of_its_own_seed(finished):
    out = Path(finished.out)
    for seed in (0, 1):
        half = load_encoder(str(out / "students" / f"half-seed{seed}"), max_length=32)
        own = load_encoder(str(out / "students" / f"residual-seed{seed}"), max_length=32)
        of_half = half.encode_document(["the birds of the sea"])[0]
        first = own.encode_document(["the birds of the sea"])[0][: len(of_half)]
        cosine = first @ of_half / np.linalg.norm(first) / np.linalg.norm(of_half)
        assert cosine == pytest.approx(1, abs=1e-4)
    digests = {model_digest(str(out / "students" / f"half-seed{seed}")) for seed in (0, 1)}
    assert len(digests) == 2


def test_an_asymmetric_one_is_searched_over_the_vectors_of_its_start(finished):
    indexes = Path(finished.out) / "indexes"
    base, own = (
        read_sealed(indexes / f"{name}-seed0" / "manifest.json") for name in ("residual", "table")
    )
    assert own["model_digest"] == base["model_digest"]
    assert own["files"]["index.faiss"] == base["files"]["index.faiss"]


def test_the_report_names_the_start(finished):
    systems = json.loads((Path(finished.out) / "results.json").read_text())["systems"]
    assert {"half", "residual", "table"} <= set(systems)
    assert "residual, of half" in (Path(finished.out) / "report.html").read_text()


def test_a_changed_start_trains_again_what_starts_from_it(config_file, finished):
    """And nothing trains again that does not."""
    before = plan(finished).keys

    def changed(*overrides: str) -> set[str]:
        after = plan(load_config(config_file, overrides)).keys
        return {n for n in after if n.startswith("train:") and before[n] != after[n]}

    every = {f"train:{name}-seed{seed}" for name in finished.students for seed in (0, 1)}
    assert changed("students.half.train.steps=4") == every
    halves = {name for name in every if "half" in name}
    assert changed("students.residual.train.steps=4") == every - halves
    assert changed("students.table.train.steps=4") == {"train:table-seed0", "train:table-seed1"}


def test_after_a_merge_it_starts_from_the_average(config_file):
    stages = plan(load_config(config_file, ["students.half.merge.with=start"])).stages
    needs = {stage.name: stage.needs for stage in stages}
    assert "merge:half-seed1" in needs["train:residual-seed1"]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("students.residual.student.start=hafl", "start 'hafl' is no student.*'half'"),
        ("students.residual.student.start=table", "start 'table' comes later in the file"),
        ("students.half.student.start=half", "students before it: none"),
        ("students.residual.student.base=org/model", "base and start both say"),
        (
            "students.half2={student: {start: half, layers: [0]}, objective: kl}",
            "it has the layers of its start, half: leave `layers` out",
        ),
        (
            "students.more={student: {kind: residual, start: residual}, objective: kl}",
            None,
        ),
        (
            "students.more={student: {kind: dense, start: residual}, objective: kl}",
            "a dense student cannot start from residual, a residual one",
        ),
        ("student.start=half", "only a student in `students`"),
    ],
)
def test_a_start_that_cannot_be_one_is_refused_first(config_file, override, problem):
    if problem is None:
        load_config(config_file, [override])
        return
    with pytest.raises(InputError, match=problem):
        load_config(config_file, [override])


def test_a_single_training_has_no_other_student(config_file, tmp_path):
    config = load_config(config_file)
    training = config.students["residual"]
    with pytest.raises(InputError, match="'half' is a student of `rkd run`"):
        train_stored(
            config.collection, "train", training, config.student, config.train, tmp_path / "out"
        )
