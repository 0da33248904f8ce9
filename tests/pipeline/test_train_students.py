"""Live teachers of a stage, and a re-ranker that is fine-tuned before it teaches."""

from __future__ import annotations

import pytest
import torch

from retrieval_kd.config.run import Config, load_config
from retrieval_kd.config.training import LiveTeacher
from retrieval_kd.data.collection import open_collection
from retrieval_kd.files import read_json
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.plan import plan
from retrieval_kd.pipeline.stages import choose_queries, retrieve_candidates
from retrieval_kd.pipeline.train_students import live_teacher, train_one
from retrieval_kd.schema import validate
from retrieval_kd.training.trainer.settings import TrainSettings
from retrieval_kd.workspace import Workspace
from tests.students.learning import pools_of

SETTINGS = TrainSettings(max_tokens=32, seed=1)
FIT = {"steps": 25, "batch_queries": 6, "slate_size": 4, "max_tokens": 32, "learning_rate": 2e-3}


def test_a_re_ranker_is_fine_tuned_once_before_it_teaches(tiny_collection, tiny_encoder, tmp_path):
    collection = open_collection(str(tiny_collection))
    pools = pools_of(collection)
    told = {"model": str(tiny_encoder), "kind": "cross_encoder", "layers": [0, 2], "trains": True}

    def opened(**more):
        live = LiveTeacher(**told, **more)
        folder = tmp_path / "ranker"
        return live_teacher(live, "", pools, collection.documents, SETTINGS, folder).eval()

    def margin(teacher):
        """Of the relevant document to a random other, mean over queries, in logits."""
        found = []
        for pool in pools:
            right, wrong = (int(pool.positions[(pool.gains > 0) == is_][0]) for is_ in (1, 0))
            texts = [collection.documents.at(at).full for at in (right, wrong)]
            labels = {"columns": torch.tensor([[0, 1]]), "mask": torch.ones(1, 2, dtype=torch.bool)}
            scores = teacher({"queries": [pool.query], "documents": texts}, labels)["score"]
            found.append((scores[0, 0] - scores[0, 1]).item())
        return sum(found) / len(found)

    fresh = opened()
    assert not (tmp_path / "ranker").exists()
    fitted = opened(fit=FIT)
    assert margin(fitted) > 0.03 > margin(fresh)
    assert all(parameter.requires_grad for parameter in fitted.parameters())
    written = (tmp_path / "ranker" / "model.safetensors").stat().st_mtime_ns
    again = opened(fit=FIT)
    assert (tmp_path / "ranker" / "model.safetensors").stat().st_mtime_ns == written
    assert margin(again) == pytest.approx(margin(fitted), abs=1e-5)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"kind": "encoder", "fit": {}}, "only a cross_encoder"),
        ({"kind": "cross_encoder", "fit": {"step": 3}}, "did you mean 'steps'"),
        ({"kind": "cross_encoder", "fit": {"mini_batch_size": 3}}, "not cached"),
        ({"kind": "cross_encoder", "fit": {"seed": 3}}, "the student's"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(told, message):
    with pytest.raises(ValueError, match=message):
        LiveTeacher(model="m", **told)


def test_fine_tuning_is_part_of_what_a_student_was_made_of(tmp_path):
    told = ["out=" + str(tmp_path), "collection=python-api"]
    file = "configs/methods/rocketqa_v2.yaml"
    live = "students.rocketqa_v2.live.reranker.fit"
    keys = [
        plan(load_config(file, [*told, f"{live}={value}"])).keys for value in ("{steps: 9}", "null")
    ]
    changed = {stage for stage in keys[0] if keys[0][stage] != keys[1][stage]}
    assert "train:rocketqa_v2-seed0" in changed and "train:labels-seed0" not in changed


def test_it_is_fine_tuned_on_judgments_and_on_no_guess_of_the_teacher(
    tiny_collection, tiny_encoder, tmp_path
):
    """Slates of candidates the teacher is sure of have its guesses among the relevant ones."""
    ranker = {"model": str(tiny_encoder), "kind": "cross_encoder", "trains": True}
    training = {
        "objective": [
            {"name": "infonce", "student": "ranker"},
            {"name": "kl", "teacher": "ranker"},
        ],
        "denoised": {"below": 1.0, "above": 2.0},
        "live": {"ranker": {**ranker, "fit": {"steps": 1, "batch_queries": 2, "max_tokens": 16}}},
        "train": {"steps": 1, "batch_queries": 2, "slate_size": 2, "max_tokens": 16},
    }
    given = {
        "name": "n", "collection": str(tiny_collection), "out": str(tmp_path),
        "encoder": str(tiny_encoder), "splits": {"dev": "dev", "dev_queries": 10},
        "first_stage": {"with": "bm25", "depth": 6}, "teacher": {"model": "bm25"},
        "student": {"base": str(tiny_encoder), "max_length": 16},
        "students": {"one": training}, "compare": ["one", "bm25"],
    }  # fmt: skip
    config = validate(Config, given)
    context = RunContext(config, Workspace(config.out))
    choose_queries(context)
    retrieve_candidates(context)
    context.ensemble.tune()
    facts = train_one(context, "one", config.students["one"], 0, 0)
    fitted = read_json(tmp_path / "students" / "one-seed0.live" / "ranker" / "training.json")
    student = read_json(tmp_path / "students" / "one-seed0" / "training.json")
    assert fitted["queries"] == len(context.queries("train").qrels) < student["queries"]
    assert facts["seconds"] == pytest.approx(fitted["seconds"] + student["seconds"])
