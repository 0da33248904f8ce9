"""`rkd train` over the store of a run makes the same pools and students as `rkd run`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from retrieval_kd.cli.app import main
from retrieval_kd.config.run import Config
from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run, write_run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.pools import stage_pools
from retrieval_kd.pipeline.stages import choose_queries, retrieve_candidates
from retrieval_kd.pipeline.stored_ensemble import StoredEnsemble, StoredTeachers
from retrieval_kd.pipeline.train_students import train_one
from retrieval_kd.schema import validate
from retrieval_kd.training.batches.slates import digest_pools, draw_slates
from retrieval_kd.training.trainer.settings import TrainSettings
from retrieval_kd.workspace import Workspace

SETTINGS = {"steps": 3, "batch_queries": 4, "slate_size": 3, "max_tokens": 16}
TWO_STAGES = {
    "stages": [
        {"objective": "kl"},
        {
            "objective": [{"name": "margin_mse"}, {"name": "kl", "teacher": "stored:1"}],
            "refresh": 3,
            "select": {"by": "uncertainty", "share": 0.9},
            "false_negatives": -0.5,
            "train": {"steps": 2},
        },
    ],
    "student": {"max_length": 24},
}


@pytest.fixture(scope="module", params=["z_scores", "calibrated"])
def run(request, tmp_path_factory, tiny_collection, tiny_encoder) -> RunContext:
    """A run whose teachers have scored everything, and whose student has not been trained."""
    out = tmp_path_factory.mktemp("run")
    settings = {
        "name": "n", "collection": str(tiny_collection), "out": str(out),
        "encoder": str(tiny_encoder), "splits": {"dev": "dev", "dev_queries": 500},
        "first_stage": {"with": "bm25", "depth": 8},
        "teacher": {
            "fuse_with": ["bm25", f"dense:{tiny_encoder}"], "weights": [2.0, 1.0],
            "fusion": request.param, "calibration": "temperature",
        },
        "student": {"base": str(tiny_encoder), "max_length": 24}, "train": SETTINGS,
        "students": {"one": TWO_STAGES}, "compare": ["one", "bm25"],
    }  # fmt: skip
    context = RunContext(validate(Config, settings), Workspace(out))
    choose_queries(context)
    retrieve_candidates(context)
    for member in context.ensemble.members:
        context.ensemble.score(member, ["dev"])
    context.ensemble.tune()
    for member in context.ensemble.members:
        context.ensemble.score(member, ["train"])
    write_run(Run("first", context.candidates("train")), out / "train.trec")
    return context


def stored_teachers(run: RunContext) -> StoredTeachers:
    teacher = run.config.teacher
    calibration = teacher.calibration if teacher.fusion == "calibrated" else None
    return StoredTeachers(
        store=run.work.path("scores"),
        names=teacher.members,
        weights=teacher.weights,
        fusion=teacher.fusion,
        calibration=calibration,
    )


def test_the_same_pools_and_draws(run):
    candidates = run.work.path("train.trec")
    ensemble = StoredEnsemble(
        run.collection, "train", candidates, stored_teachers(run), "dev", Drops()
    )
    for stage in run.config.students["one"].all_stages:
        first = stage.model_copy(update={"refresh": None, "select": None})
        wanted, shares = stage_pools(first, run.ensemble, "", Drops())
        pools, groups = stage_pools(first, ensemble, "", Drops())
        assert groups == shares
        if run.config.teacher.fusion == "z_scores":  # a fit sums its queries in another order
            assert digest_pools(pools) == digest_pools(wanted)
        rows = [(number, number) for number in range(len(pools))]
        settings = TrainSettings(**SETTINGS)
        for slates in zip(*(draw_slates(p, rows, settings) for p in (pools, wanted)), strict=True):
            ours, theirs = slates
            np.testing.assert_array_equal(ours.positions, theirs.positions)
            np.testing.assert_allclose(ours.teacher, theirs.teacher, rtol=1e-4)


def test_the_same_student_after_two_stages(run, tiny_collection, tiny_encoder, tmp_path):
    """By the command, with the run's store: refreshed candidates that it lacks are masked."""
    for number in range(2):
        train_one(run, "one", run.config.students["one"], 0, number)
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(TWO_STAGES))
    teacher = run.config.teacher
    command = [
        "train", "--collection", tiny_collection, "--dev-split", "dev",
        "--store", run.work.path("scores"), "--candidates", run.work.path("train.trec"),
        "--student", tiny_encoder, "--training", tmp_path / "training.yaml",
        "--fusion", teacher.fusion, "--out", tmp_path / "student",
    ]  # fmt: skip
    if teacher.fusion == "calibrated":
        command += ["--calibration", teacher.calibration]
    for member, weight in zip(teacher.members, teacher.weights, strict=True):
        command += ["--teacher", member, "--weight", weight]
    for name, value in SETTINGS.items():
        command += ["--" + name.replace("_", "-"), value]
    with pytest.raises(SystemExit, match="0"):
        main([str(argument) for argument in command])
    for folder, out in (("one-seed0-stage1", "student-stage1"), ("one-seed0", "student")):
        ours, theirs = tmp_path / out, run.work.path("students", folder)
        records = [json.loads((f / "training.json").read_text()) for f in (ours, theirs)]
        for key in ("terms", "settings", "queries"):
            assert records[0][key] == records[1][key]
        if teacher.fusion == "z_scores":
            weights = [(f / "model.safetensors").read_bytes() for f in (ours, theirs)]
            assert weights[0] == weights[1]
    assert "### Stage 2" in (tmp_path / "student" / "README.md").read_text()


def test_a_fusion_says_what_it_lacks(run, tiny_collection):
    teachers = stored_teachers(run).model_copy(update={"fusion": "learned", "calibration": None})
    collection = open_collection(str(tiny_collection))
    with pytest.raises(InputError, match="fusion learned is fitted on judged queries"):
        StoredEnsemble(collection, "train", None, teachers, None, Drops())
    wrong = teachers.model_copy(update={"calibration": "platt"})
    with pytest.raises(InputError, match="calibrates nothing"):
        StoredEnsemble(collection, "train", None, wrong, "dev", Drops())
    few = teachers.model_copy(update={"weights": [1.0]})
    with pytest.raises(InputError, match="1 weights for 2 teachers"):
        StoredEnsemble(collection, "train", None, few, "dev", Drops())
    learned = StoredEnsemble(collection, "train", None, teachers, "dev", Drops())
    assert learned.fitted.combination.chooser is not None
    assert learned.fused("train", Drops()).keys() == learned.candidates("train").keys()


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        ({"objectives": "kl"}, "did you mean 'objective'"),
        ({"objective": "infonce", "teachers": {"gpt": 1}}, "no teacher 'gpt'"),
        ({"objective": "kl", "train": {"step": 1}}, "did you mean 'steps'"),
        ({"objective": "infonce", "refresh": 3}, "no earlier student"),
        ({"objective": "kl", "student": {"kind": "cross-encoder"}}, "cross_encoder"),
    ],
)
def test_a_mistake_in_a_training_file_is_said_before_a_model_is_loaded(
    training, problem, run, tiny_collection, tmp_path, capfd
):
    file: Path = tmp_path / "training.yaml"
    file.write_text(yaml.safe_dump(training))
    with pytest.raises(SystemExit, match="2"):
        main([
            "train", "--collection", str(tiny_collection), "--student", "no/model",
            "--store", str(run.work.path("scores")), "--teacher", "bm25",
            "--training", str(file), "--out", str(tmp_path / "student"),
        ])  # fmt: skip
    assert problem in capfd.readouterr().err
