"""Training on texts without slates: the student comes nearer to the teacher, stopped or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import TrainerCallback

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.facts import imitated_digests
from retrieval_kd.models.load import document_digest, load_encoder
from retrieval_kd.students.dense import make_dense
from retrieval_kd.training.batches.plain_texts import PlainTexts
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer import engine
from retrieval_kd.training.trainer.settings import TrainSettings

QUERIES = ["sparrow nest", "rook gambit castle", "mast", "violin", "orbit of a comet"]
SETTINGS = TrainSettings(
    steps=12, batch_queries=16, save_steps=4, eval_steps=6, max_tokens=32, learning_rate=3e-3
)


@pytest.fixture(scope="module")
def wide(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A teacher of 48 dimensions."""
    folder = str(tmp_path_factory.mktemp("models") / "wide")
    make_dense(str(tiny_encoder), dimensions=48, seed=3).save(folder)
    return folder


def trained(folder: Path, student: Any, names: list[str], teacher: str, out: Path, **more: Any):
    documents = open_collection(str(folder)).documents
    terms = [Term(name=name, teacher=teacher) for name in names]
    texts = PlainTexts(QUERIES, np.arange(len(documents)))
    return train_student(
        TrainingJob(student, [], documents, terms, SETTINGS, out, texts=texts, **more)
    )


def test_it_comes_nearer_and_ends_the_same_if_it_is_stopped(
    tiny_collection, tiny_encoder, wide, tmp_path
):
    def run(name: str) -> dict[str, Any]:
        student = make_dense(str(tiny_encoder), [0, 3], dimensions=48)
        objectives = ["embedding_cosine", "embedding_similarity"]
        made = {"layers": {"kept": [0, 3]}}
        return trained(tiny_collection, student, objectives, wide, tmp_path / name, made=made)

    record = run("whole")
    losses = [p["embedding_cosine_from_wide"] for p in record["curve"]]
    assert losses[-1] < 0.6 * losses[0]
    assert record["texts"] == 65 and "queries" not in record
    assert record["layers"] == {"kept": [0, 3]}
    assert record["imitates"] == {wide: document_digest(wide)}
    assert imitated_digests(str(tmp_path / "whole")) == [document_digest(wide)]
    assert imitated_digests(wide) == []
    assert "on 65 texts." in ModelCard.load(tmp_path / "whole" / "README.md").text

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 6:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "Bar", lambda steps: Stop())
        run("stopped")
    assert run("stopped")["resumed_from_step"] == 4
    for path in sorted((tmp_path / "whole").rglob("*.safetensors")):  # the projection's too
        one = load_file(path)
        other = load_file(tmp_path / "stopped" / path.relative_to(tmp_path / "whole"))
        assert all(torch.equal(one[name], other[name]) for name in one)

    texts = ["sparrow egg nest", "knight mate"]
    target = load_encoder(wide).encode(texts)
    before = make_dense(str(tiny_encoder), [0, 3], dimensions=48).encode(texts)
    after = load_encoder(str(tmp_path / "whole")).encode(texts)
    assert ((after * target).sum(1) > (before * target).sum(1)).all()


def test_a_student_of_another_width_is_refused_before_it_is_trained(
    tiny_collection, tiny_encoder, wide, tmp_path
):
    student = make_dense(str(tiny_encoder))
    with pytest.raises(InputError, match="48 dimensions, the student's 32"):
        trained(tiny_collection, student, ["embedding_mse"], wide, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_similarities_need_no_common_width_and_make_no_common_space(
    tiny_collection, tiny_encoder, wide, tmp_path
):
    student = make_dense(str(tiny_encoder), [0, 3])
    names = ["embedding_similarity"]
    record = trained(tiny_collection, student, names, wide, tmp_path / "out")
    losses = [p["embedding_similarity_from_wide"] for p in record["curve"]]
    assert losses[-1] < losses[0] and "imitates" not in record


def test_a_narrower_student_comes_nearer_to_a_wide_teachers_first_axes(
    tiny_collection, tiny_encoder, wide, tmp_path
):
    student = make_dense(str(tiny_encoder), [0, 3], dimensions=6)
    record = trained(tiny_collection, student, ["embedding_pca"], wide, tmp_path / "out")
    losses = [p["embedding_pca_from_wide"] for p in record["curve"]]
    assert losses[-1] < losses[0] and "imitates" not in record
    saved = load_encoder(str(tmp_path / "out"))
    assert saved.get_embedding_dimension() == 6
