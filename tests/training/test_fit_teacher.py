"""A cross-encoder learns from judgments, and its loss sees each query's own slate."""

from __future__ import annotations

import numpy as np
import torch

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import Drops
from retrieval_kd.models.load import load_cross_encoder
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.training.batches.pools import build_pools
from retrieval_kd.training.batches.slates import draw
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_cross_encoder import PairCollator, PairLoss
from retrieval_kd.training.trainer.settings import TrainSettings

SETTINGS = TrainSettings(
    steps=40,
    batch_queries=6,
    slate_size=4,
    slate_depth=10,
    max_tokens=48,
    learning_rate=2e-3,
    eval_steps=20,
    group_size=7,
)


def _pools(collection):
    queries = collection.query_texts("train")
    run = bm25_run(collection, queries, 10)
    qrels = collection.qrels("train")
    return build_pools(queries, run.results, collection, qrels, None, Drops())


def test_the_pair_loss_is_softmax_cross_entropy_over_the_slate(tiny_collection, tiny_encoder):
    collection = open_collection(str(tiny_collection))
    pools = _pools(collection)
    torch.manual_seed(0)
    model = load_cross_encoder(str(tiny_encoder), max_length=48, dtype=torch.float32, new_head=True)
    collator = PairCollator(
        preprocess_fn=model.preprocess, pools=pools, texts=collection.documents, settings=SETTINGS
    )
    batch = collator([{"pool": i, "draw": 0} for i in range(5)])
    label = batch.pop("label")
    assert len(batch) > 1
    with torch.no_grad():
        got = PairLoss(model, [Term(name="infonce")])(list(batch.values()), label)["infonce"]
    per_query = []
    for i in range(5):
        slate = draw(pools[i], 4, 10, np.random.default_rng([0, i, 0]))
        pairs = [[pools[i].query, collection.documents.at(int(at)).full] for at in slate.positions]
        logits = torch.tensor(model.predict(pairs, activation_fn=torch.nn.Identity()))
        relevant = torch.tensor(slate.gains > 0)
        losses = [
            -torch.log_softmax(torch.cat([logits[j : j + 1], logits[~relevant]]), 0)[0]
            for j in relevant.nonzero().flatten().tolist()
        ]
        per_query.append(torch.stack(losses).mean())
    torch.testing.assert_close(got, torch.stack(per_query).mean(), atol=1e-5, rtol=1e-4)


def test_fitting_teaches_and_is_not_run_twice(tiny_collection, tiny_encoder, tmp_path):
    collection = open_collection(str(tiny_collection))
    out = tmp_path / "teacher"
    record = fit_teacher(
        str(tiny_encoder), _pools(collection), collection.documents, out, settings=SETTINGS
    )
    losses = [point["loss"] for point in record["curve"] if "loss" in point]
    assert losses[-1] < losses[0]
    weights = (out / "model.safetensors").stat().st_mtime_ns
    again = fit_teacher(
        str(tiny_encoder), _pools(collection), collection.documents, out, settings=SETTINGS
    )
    assert again == record and (out / "model.safetensors").stat().st_mtime_ns == weights
