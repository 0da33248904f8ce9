"""A training is told apart by all that decides it, and a killed one ends as it would have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.load import model_digest
from retrieval_kd.students.dense import make_dense
from retrieval_kd.students.make import make_student
from retrieval_kd.training.batches.selection import pool_scores
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.job import TrainingJob, state_of
from retrieval_kd.training.live_models import open_live
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer import checkpoints, engine
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sparse", ({"top_k": 4}, {"top_k": 8})),
        ("multi_function", ({"main": "dense"}, {"main": "integrated"})),
        ("multi_function", ({"weights": {"dense": 1.0}}, {"weights": {"multi": 1.0}})),
    ],
)
def test_another_option_is_another_training(kind, options, tiny_encoder):
    one, other = (state_of(make_student(str(tiny_encoder), kind, options=own)) for own in options)
    again = state_of(make_student(str(tiny_encoder), kind, options=options[0]))
    assert one == again and one != other


class Killed(Exception):
    pass


def test_a_killed_training_with_a_live_teacher_ends_as_an_undisturbed_one(
    collection, tiny_encoder, tiny_cross_encoder, tiny_dot_encoder, tmp_path, monkeypatch
):
    terms = [
        Term(name="kl", teacher="reranker", joint=True),
        Term(name="infonce", student="reranker"),
    ]
    settings = TrainSettings(
        steps=4, batch_queries=3, slate_size=3, save_steps=2, learning_rate=1e-3, max_tokens=16
    )

    def run(out: Path) -> dict:
        live = {"reranker": open_live(str(tiny_cross_encoder), "cross_encoder", trains=True)}
        return train_student(
            TrainingJob(
                make_dense(str(tiny_encoder), [0, 3]),
                pools_of(collection),
                collection.documents,
                terms,
                settings,
                out,
                live=live,
            )
        )

    run(tmp_path / "whole")
    after = engine.Follower.on_save

    def killed(self: TrainerCallback, *arguments, **more) -> None:
        after(self, *arguments, **more)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(engine.Follower, "on_save", killed)
        run(tmp_path / "killed")
    record = run(tmp_path / "killed")
    assert record["resumed_from_step"] == 2 and record["student"]["layers"] == 2
    assert record == json.loads((tmp_path / "killed" / "training.json").read_text())
    for file in ("model.safetensors", "live/reranker/model.safetensors"):
        expected, found = (load_file(tmp_path / name / file) for name in ("whole", "killed"))
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-5)


def test_a_folder_never_holds_a_model_without_its_record(tiny_encoder, tmp_path, monkeypatch):
    """Killed between the two, the next run would take the folder for somebody else's."""
    out, student = tmp_path / "s", make_dense(str(tiny_encoder))
    record = {"identity": "a", "settings": {}, "curve": [], "queries": 0}
    checkpoints.save_whole(student, out, record, {"live/big": student})
    assert checkpoints.finished(out, "a") and (out / "live" / "big" / "model.safetensors").exists()
    shutil.rmtree(out)


def test_a_student_is_the_same_whatever_its_tokenizer_read_last(tiny_encoder, tmp_path):
    """One that resumed after its last step has read nothing."""
    record = {"identity": "a", "settings": {}, "curve": [], "queries": 0}
    for name in ("unread", "read"):
        student = make_dense(str(tiny_encoder))
        if name == "read":
            student.encode(["sparrow wing", "a longer text"])
        checkpoints.save_whole(student, tmp_path / name, record, {})
    assert model_digest(str(tmp_path / "read")) == model_digest(str(tmp_path / "unread"))


def test_a_sparse_live_teacher_scores_by_words(collection, tiny_encoder, tmp_path):
    model = make_student(str(tiny_encoder), "sparse")
    model.save(str(tmp_path / "sparse"))
    texts = {"queries": ["sparrow wing"], "documents": ["feather nest song", "violin"]}
    found = open_live(str(tmp_path / "sparse"), "encoder")(texts, {})["score"]
    expected = model.similarity(
        model.encode_query(texts["queries"]), model.encode_document(texts["documents"])
    )
    torch.testing.assert_close(found, expected.to_dense(), atol=1e-4, rtol=1e-4)
    pool = Pool("sparrow wing", np.array([5, 0, 7]), np.zeros(3), np.zeros(3))
    (scores,), temperature = pool_scores(str(tmp_path / "sparse"), [pool], collection.documents)
    documents = [collection.documents.at(at).full for at in (5, 0, 7)]
    expected = model.similarity(model.encode_query([pool.query]), model.encode_document(documents))
    np.testing.assert_allclose(scores, expected.to_dense()[0], rtol=1e-4, atol=1e-4)
    assert temperature == 1.0


def test_more_dimensions_than_there_are_is_an_error(collection, tiny_encoder, tmp_path):
    with pytest.raises(InputError, match="33 dimensions of a student with 32"):
        train_student(
            TrainingJob(
                make_dense(str(tiny_encoder), [0]),
                pools_of(collection),
                collection.documents,
                [Term(name="infonce", dimensions=(33,))],
                TrainSettings(steps=1, batch_queries=2, max_tokens=16),
                tmp_path / "s",
            )
        )
