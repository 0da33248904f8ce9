"""Trains tiny students, alone or under `torchrun`: one of each case. Not a test.

python -m tests.training.shared_training COLLECTION ENCODER OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import Drops
from retrieval_kd.retrieval.bm25 import bm25_run, bm25_scores
from retrieval_kd.students.make import make
from retrieval_kd.teachers.live import open_live
from retrieval_kd.training.settings import TrainSettings
from retrieval_kd.training.slates import build_pools
from retrieval_kd.training.terms import Term
from retrieval_kd.training.train import train_student

DENSE = [Term(name="kl", candidates="batch", teacher_temperature=2.0)]
# Case → student kind, terms, texts encoded at a time. All terms are means over queries, of which
# each process has as many; a mean over pairs would count short slates for more.
CASES = {
    "dense": ("dense", DENSE, None),
    "cached": ("dense", DENSE, 2),
    "multi_vector": (
        "multi_vector",
        [*DENSE, Term(name="infonce", candidates="batch")],
        None,
    ),
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
    for case, (kind, terms, mini) in CASES.items():
        settings = TrainSettings(
            steps=3, batch_queries=4, slate_size=3, max_tokens=16, group_size=5, warmup=0,
            learning_rate=1e-3, mini_batch_size=mini,
        )  # fmt: skip
        train_student(
            make(encoder, kind),
            [pool for pool in pools if (pool.gains > 0).any()],
            opened.documents,
            terms,
            settings,
            Path(out, case),
            live={"big": open_live(encoder, "encoder", trains=True)} if case == "live" else None,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
