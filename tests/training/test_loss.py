"""Cached gradients are the plain ones: every objective, every kind of student, dropout or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from retrieval_kd import objectives
from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.students.make import make_student
from retrieval_kd.training.batches.collate import SlateCollator
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.terms import Term, parse_terms
from retrieval_kd.training.trainer.engine import set_dropout
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of

KINDS = ("dense", "sparse", "multi_vector", "inference_free")
QUERIES, MINI = 3, 3  # as many as a mini-batch holds, see `in_pieces`
NEEDED: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module", params=KINDS)
def student(request, tiny_encoder, collection) -> Any:
    if request.param == "inference_free":
        more: dict[str, Any] = {"documents": collection.documents, "query": "idf"}
        return make_student(str(tiny_encoder), "sparse", [0, 3], **more)
    return make_student(str(tiny_encoder), request.param, [0, 3])


@pytest.fixture(scope="module")
def batch(student, collection) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Features of queries and of one group of documents, and labels."""
    collator = SlateCollator(
        preprocess_fn=student.preprocess,
        pools=pools_of(collection),
        texts=collection.documents,
        settings=TrainSettings(slate_size=4, slate_depth=10, group_size=100),
    )
    made = collator([{"pool": i, "draw": i} for i in range(QUERIES)])
    features = [
        {
            key.removeprefix(f"{name}_"): value
            for key, value in made.items()
            if key.startswith(f"{name}_")
        }
        for name in ("query", "group0")
    ]
    return features, made["label"]


def in_pieces(features: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """A group of documents as groups of a mini-batch's size, padded as before."""
    count = len(features["input_ids"])
    return [
        {
            name: value[at : at + MINI] if isinstance(value, Tensor) and value.dim() else value
            for name, value in features.items()
        }
        for at in range(0, count, MINI)
    ]


def gradients(
    student: Any, terms: list[Term], features: list[dict[str, Tensor]], labels: Any, cached: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Components of the loss, and the gradient of every weight."""
    student.train()
    student.zero_grad()
    loss = ScoreMatrixLoss(student, terms, mini_batch_size=MINI if cached else None)
    loss.progress = 0.5
    torch.manual_seed(0)
    parts = loss(features, labels)
    torch.stack(list(parts.values())).sum().backward()
    found = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    return {name: part.detach() for name, part in parts.items()}, found


def assert_equal(student: Any, batch: Any, terms: list[Term], dropout: float) -> None:
    (queries, documents), labels = batch
    before = set_dropout(student, dropout)
    plain = [queries, *in_pieces(documents)] if dropout else [queries, documents]
    expected_parts, expected = gradients(student, terms, plain, labels, cached=False)
    parts, found = gradients(student, terms, [queries, documents], labels, cached=True)
    for layer, probability in before:
        layer.p = probability
    assert len(documents["input_ids"]) > 2 * MINI
    torch.testing.assert_close(parts, expected_parts, atol=1e-5, rtol=1e-4)
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert largest > 0
    for name, gradient in expected.items():
        # Float32 sums in another order: a small error relative to the largest gradient.
        torch.testing.assert_close(
            found[name], gradient, atol=float(2e-4 * largest), rtol=2e-3, msg=name
        )


@pytest.mark.parametrize("name", objectives.__all__)
def test_cached_gradients_equal_plain_ones(student, batch, name):
    assert_equal(student, batch, [Term(name=name, **NEEDED.get(name, {}))], dropout=0.0)


@pytest.mark.parametrize("objective", ["kl", "infonce@batch", "margin_mse+kl:0.5@batch"])
def test_so_they_do_with_dropout_that_is_replayed(student, batch, objective):
    assert_equal(student, batch, parse_terms(objective), dropout=0.1)


def test_a_regulariser_of_vectors_is_cached_too(tiny_encoder, collection, student, batch):
    if "vector" not in ScoreMatrixLoss(student, [Term(name="kl")]).student.represent(
        dict(batch[0][0]), "query"
    ):
        pytest.skip("a vector per token has no regulariser of its own")
    assert_equal(student, batch, parse_terms("kl+flops:0.1"), dropout=0.0)
