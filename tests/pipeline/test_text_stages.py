"""A run with a stage over texts, layers chosen on dev and a projection to the teacher's width."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from retrieval_kd.config.run import Config
from retrieval_kd.config.student import Student
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models.load import document_digest
from retrieval_kd.pipeline import train_students
from retrieval_kd.pipeline.descriptions import describe_trainings
from retrieval_kd.pipeline.plan import plan, run
from retrieval_kd.pipeline.train_students import StudentTraining
from retrieval_kd.schema import validate
from retrieval_kd.students.dense import make_dense
from retrieval_kd.training.merge import merge_saved

INDEXES = Path(__file__).parents[2] / "indexes"
LAYERS = {"keep": 2, "choose": "dev"}


@pytest.fixture(scope="module")
def wide(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("models") / "wide")
    make_dense(str(tiny_encoder), dimensions=48, seed=3).save(folder)
    return folder


@pytest.fixture(scope="module")
def config(tiny_collection, tiny_encoder, wide, tmp_path_factory) -> Config:
    imitate = {
        "objective": [{"name": n, "teacher": wide} for n in ("embedding_mse", "hidden_states")],
        "texts": "all",
        "train": {"steps": 6, "batch_queries": 12},
    }
    student = {"dimensions": 48, "layers": LAYERS}
    given = {
        "name": "n", "collection": str(tiny_collection), "encoder": str(tiny_encoder),
        "out": str(tmp_path_factory.mktemp("run")), "splits": {"dev": "dev", "dev_queries": 10},
        "first_stage": {"with": "bm25", "depth": 6}, "teacher": {"model": "bm25"},
        "student": {"base": str(tiny_encoder), "max_length": 32},
        "train": {"steps": 2, "batch_queries": 4, "slate_size": 3, "max_tokens": 32},
        "students": {"one": {"stages": [imitate, {"objective": "kl"}], "student": student,
                             "merge": {"with": "start", "share": 0.5}}},
        "compare": ["one", "bm25"], "index": str(INDEXES / "flat.yaml"),
    }  # fmt: skip
    return validate(Config, given)


def test_a_run_imitates_then_ranks_with_the_layers_that_dev_chose(config, wide, caplog):
    said = describe_trainings(config, {"train": 18})
    assert said["train:one-seed0-stage1"] == "6 steps of 12 texts"
    results = run(config)
    assert not plan(config).todo()
    students = Path(config.out) / "students"
    first, last = (
        read_json(students / name / "training.json") for name in ("one-seed0-stage1", "one-seed0")
    )
    assert first["texts"] == 72 and first["imitates"] == {wide: document_digest(wide)}
    assert last["queries"] and "imitates" not in last
    choice = first["layers"]
    assert last["layers"] == choice and len(choice["tried"]) == 6
    best = max(choice["tried"], key=lambda one: one["ndcg@10"])
    assert choice["kept"] == best["layers"]
    assert last["student"]["layers"] == 2 and last["student"]["dimensions"] == 48
    assert (students / "one-seed0-merged").is_dir()
    report = (Path(config.out) / "report.html").read_text()
    assert f"one keeps layers {', '.join(map(str, best['layers']))}: untrained" in report
    assert "2 layers of" in report and results.costs["one"]["dimensions"] == 48


def test_a_training_on_texts_alone_needs_no_candidates(
    config, tiny_collection, tiny_encoder, tmp_path, command
):
    """It ends in the weights of the run's first stage."""
    run(config)
    [imitate, _], student = config.students["one"].stages, config.students["one"].student
    stage = imitate.model_dump(mode="json", exclude_defaults=True)
    told = {"stages": [stage], "student": {**student, "max_length": 32}}
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(told))
    asked = ["train", "--collection", tiny_collection, "--student", tiny_encoder]
    asked += ["--out", tmp_path / "student", "--training", tmp_path / "training.yaml"]
    code, printed = command(*asked)
    assert code == 2 and "layers are chosen on dev queries: set a dev split" in printed
    code, printed = command(*asked, "--dev-split", "dev", "--max-tokens", 32)
    assert code == 0 and "2 layers" in printed and "6 steps on 72 texts" in printed
    whole = Path(config.out) / "students" / "one-seed0-stage1"
    ours, theirs = (read_json(f / "training.json") for f in (tmp_path / "student", whole))
    assert [ours[key] for key in ("terms", "imitates")] == [theirs["terms"], theirs["imitates"]]
    told["stages"].append({"objective": "infonce"})
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(told))
    code, printed = command(*asked, "--dev-split", "dev")
    assert code == 2 and "nothing to train on" in printed


def test_the_teachers_index_is_searched_with_what_imitates_it_alone(
    config, wide, tiny_collection, tmp_path
):
    run(config)
    students = Path(config.out) / "students"
    build_index(open_collection(str(tiny_collection)), wide, IndexSpec(), tmp_path / "index")
    index = Index.open(tmp_path / "index", str(students / "one-seed0-stage1"))
    [hits] = index.search(["sparrow nest song"], 3)
    assert len(hits) == 3
    stages = [str(students / name) for name in ("one-seed0-stage1", "one-seed0")]
    merge_saved(stages, None, tmp_path / "soup")
    for folder in (students / "one-seed0", students / "one-seed0-merged", tmp_path / "soup"):
        with pytest.raises(InputError, match="their vectors do not compare"):
            Index.open(tmp_path / "index", str(folder))


def test_layers_of_a_student_with_idf_are_measured_for_each_collection(tiny_encoder, monkeypatch):
    """The weights of its queries are counted in all documents, not in those of the dev task."""

    def kept(query: str | None, digest: str) -> str:
        told = {"kind": "sparse", "base": str(tiny_encoder), "layers": LAYERS, "query": query}
        ensemble = SimpleNamespace(
            collection=SimpleNamespace(documents=SimpleNamespace(digest=digest))
        )
        values: dict[str, Any] = {f.name: None for f in fields(StudentTraining)}
        values |= {"start": validate(Student, told), "ensemble": ensemble, "dev": object()}
        return str(StudentTraining(**values).choice["key"])

    monkeypatch.setattr(train_students, "choose_layers", lambda *given: {"key": given[-1]})
    assert kept("idf", "one") == kept("idf", "one") != kept("idf", "another")
    assert kept(None, "one") == kept(None, "another")
