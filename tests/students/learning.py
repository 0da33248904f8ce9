"""What every kind of student must show of its training. Not a test."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import Drops
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.objective.terms import parse_terms
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer import engine
from retrieval_kd.training.trainer.curve import build_dev_task
from retrieval_kd.training.trainer.settings import TrainSettings

TEXTS = ["sparrow nest", "rook gambit castle", ""]
SETTINGS = TrainSettings(
    steps=12,
    batch_queries=6,
    eval_steps=6,
    save_steps=4,
    max_tokens=32,
    learning_rate=5e-3,
)


def pools_of(collection: Collection) -> list[Pool]:
    """Train queries with BM25's scores as the teacher's."""
    queries = collection.query_texts("train")
    run = bm25_run(collection, queries, 12)
    qrels = collection.qrels("train")
    return build_pools(queries, run.results, collection, qrels, run.results, Drops())


def _train(student: Any, folder: Path, out: Path, objective: str) -> dict[str, Any]:
    collection = open_collection(str(folder))
    queries = collection.query_texts("dev")
    first = bm25_run(collection, queries, 10)
    return train_student(
        TrainingJob(
            copy.deepcopy(student),
            pools_of(collection),
            collection.documents,
            parse_terms(objective),
            SETTINGS,
            out,
            dev=build_dev_task(collection, queries, collection.qrels("dev"), first),
        )
    )


def assert_it_learns(student: Any, collection: Path, tmp_path: Path, objective: str) -> Path:
    """The first component falls, the dev curve is drawn, and a training that is stopped after its
    checkpoint ends, started again, in the same student as one at one go. Gives that student."""
    record = _train(student, collection, tmp_path / "whole", objective)
    name = objective.partition("+")[0]
    losses = [point[name] for point in record["curve"] if name in point]
    assert losses[-1] < losses[0]
    assert [p["step"] for p in record["curve"] if "dev_ndcg@10" in p] == [0, 6, 12]
    assert record["student"]["layers"] == 2

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 6:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "Bar", lambda steps: Stop())
        _train(student, collection, tmp_path / "stopped", objective)
    record = _train(student, collection, tmp_path / "stopped", objective)
    assert record["resumed_from_step"] == 4
    whole, stopped = (
        load_file(next((tmp_path / name).glob("**/model.safetensors")))
        for name in ("whole", "stopped")
    )
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    return tmp_path / "stopped"
