"""Trains tiny students, alone or under `torchrun`: one of each case. Not a test.

python -m tests.training.shared_training COLLECTION ENCODER OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import Drops
from retrieval_kd.files import write_json
from retrieval_kd.retrieval.bm25 import bm25_run, bm25_scores
from retrieval_kd.students.make import make_student
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.live_models import open_live
from retrieval_kd.training.objective.policy import TeacherPolicy
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.devices import average_gradients, is_first
from retrieval_kd.training.trainer.settings import TrainSettings

DENSE = [Term(name="kl", candidates="batch", teacher_temperature=2.0)]
# Case → student kind, terms, texts encoded at a time. All terms are means over queries, of which
# each process has as many.
CASES = {
    "dense": ("dense", DENSE, None),
    "cached": ("dense", DENSE, 2),
    "multi_vector": (
        "multi_vector",
        [*DENSE, Term(name="infonce", candidates="batch")],
        None,
    ),
    # not KL, which leaves the bias of a head without a gradient but for rounding
    "cross_encoder": ("cross_encoder", [Term(name="mse", weight=0.01)], None),
    "live": (
        "dense",
        [
            Term(name="kl", candidates="batch", teacher="big", joint=True, teacher_temperature=0.1),
            Term(name="infonce", candidates="batch", student="big"),
        ],
        None,
    ),
}


def main(collection: str, encoder: str, out: str) -> None:
    torch.set_num_threads(1)
    opened = open_collection(collection)
    queries = opened.query_texts("train")
    run = bm25_run(opened, queries, 6)
    wanted = {query: list(found) for query, found in run.results.items()}
    teacher = bm25_scores(opened, queries, wanted)
    pools = build_pools(queries, run.results, opened, opened.qrels("train"), teacher, Drops())
    # Else MSE, a mean over pairs, would count the queries of longer slates for more.
    whole = [p for p in pools if (p.gains > 0).any() and np.isfinite(p.teacher).all()]
    whole = [pool for pool in whole if len(pool.positions) >= 3]
    for case, (kind, terms, mini) in CASES.items():
        settings = TrainSettings(
            steps=3, batch_queries=4, slate_size=3, max_tokens=16, group_size=5, warmup=0,
            learning_rate=1e-3, mini_batch_size=mini,
        )  # fmt: skip
        train_student(
            TrainingJob(
                make_student(encoder, kind),
                whole,
                opened.documents,
                terms,
                settings,
                Path(out, case),
                live={"big": open_live(encoder, "encoder", trains=True)} if case == "live" else {},
            )
        )
    steps_alone(Path(out))


def steps_alone(out: Path) -> None:
    """What two processes make of other gradients, and of other choices and rewards, in files."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    layers = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("used", "unused")})
    layers["used"](torch.tensor([[rank + 1.0]])).sum().backward()
    average_gradients(layers)
    if is_first():
        found = {name: layer.weight.grad for name, layer in layers.items()}
        told = {name: None if grad is None else grad.item() for name, grad in found.items()}
        write_json(out / "gradients.json", told)
    policy, states = TeacherPolicy(2, 1), torch.full((2, 3, 1), rank + 1.0)
    there = torch.ones(2, 3, dtype=torch.bool)
    policy(states, there, None)
    before = policy.taken_bias.tolist()
    policy(states, there, torch.tensor(4.0) if rank == 0 else None)
    buffers = {name: value.tolist() for name, value in policy.named_buffers()}
    write_json(out / f"policy{rank}.json", {**buffers, "before": before})


if __name__ == "__main__":
    main(*sys.argv[1:])
