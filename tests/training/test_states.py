"""Terms on states: layers and features of a frozen model, for students that read texts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.load import load_cross_encoder, load_encoder
from retrieval_kd.objectives import states as objectives
from retrieval_kd.students.dense import embed
from retrieval_kd.students.make import make_student
from retrieval_kd.training.batches.collate import SlateCollator
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of

SETTINGS = TrainSettings(
    steps=16, batch_queries=4, max_tokens=32, learning_rate=2e-3, eval_steps=8, save_steps=16
)


@pytest.fixture(scope="module")
def collection(tiny_collection):
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def spread_encoder(tmp_path_factory, tiny_encoder) -> Path:
    """Of the same vocabulary, three layers, with other and larger weights in their attention."""
    folder = tmp_path_factory.mktemp("spread") / "encoder"
    model = make_student(str(tiny_encoder), "dense", [0, 1, 2])
    generator = torch.Generator().manual_seed(0)
    for own in attentions(model):
        for linear in (own.query, own.key, own.value):
            torch.nn.init.normal_(linear.weight, std=0.4, generator=generator)
    model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def spread_cross_encoder(tmp_path_factory, tiny_cross_encoder) -> Path:
    """Of weights so large that its states of different pairs differ."""
    folder = tmp_path_factory.mktemp("spread") / "cross"
    model, generator = load_cross_encoder(str(tiny_cross_encoder)), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    model.save(str(folder))
    return folder


def attentions(model: Any) -> list[Any]:
    encoder = getattr(model[0].auto_model, "bert", model[0].auto_model).encoder
    return [layer.attention.self for layer in encoder.layer]


def batch_of(student: Any, collection: Any, group_size: int = 3) -> tuple[list[Any], Any]:
    """Features of queries and of several groups of documents, and labels with the texts."""
    collator = SlateCollator(
        preprocess_fn=student.preprocess,
        pools=pools_of(collection),
        texts=collection.documents,
        settings=TrainSettings(slate_size=4, slate_depth=10, group_size=group_size),
        keep_texts=True,
    )
    made = collator([{"pool": i, "draw": i} for i in range(3)])
    columns = sorted({key.partition("_")[0] for key in made if key != "label"})
    features = [
        {k.removeprefix(f"{name}_"): v for k, v in made.items() if k.startswith(f"{name}_")}
        for name in ("query", *(name for name in columns if name != "query"))
    ]
    return features, made["label"]


def expected_of(term: Term, student: Any, features: Any, labels: Any) -> Tensor:
    """A term's value by the models' own states, text by text, weighted by tokens."""
    teacher = load_encoder(term.teacher, dtype=torch.float32)
    texts = iter([*labels["texts"]["queries"], *labels["texts"]["documents"]])
    values, counts = [], []
    for group in features:
        for text in itertools.islice(texts, len(group["input_ids"])):
            alone = student.preprocess([text])
            mask = alone["attention_mask"]
            own, other = (
                m[0]
                .auto_model(
                    input_ids=alone["input_ids"], attention_mask=mask, output_hidden_states=True
                )
                .hidden_states
                for m in (student, teacher)
            )
            layers = [(0, 0), (1, 2), (2, 3)]
            values.append(objectives.hidden_states(own, other, mask, layers=layers))
            counts.append(mask.sum())
    weights = torch.stack(counts).float()
    return (torch.stack([torch.as_tensor(v) for v in values]) * weights).sum() / weights.sum()


def test_a_dense_students_loss_is_the_mean_over_all_tokens_of_queries_and_documents(
    collection, tiny_encoder, spread_encoder
):
    """By each text alone: padding and groups change nothing. Cached gradients are the same."""
    student = make_student(str(tiny_encoder), "dense", [0, 3])
    term = Term(name="hidden_states", teacher=str(spread_encoder))
    features, labels = batch_of(student, collection)
    student.eval()
    with torch.no_grad():
        expected = expected_of(term, student, features, labels)
    found = []
    for mini in (None, 2):
        student.zero_grad()
        loss = ScoreMatrixLoss(student, [Term(name="kl"), term], mini_batch_size=mini)
        parts = loss(features, labels)
        torch.stack(list(parts.values())).sum().backward()
        torch.testing.assert_close(parts[term.label], expected, atol=1e-6, rtol=1e-4)
        found.append({n: p.grad for n, p in student.named_parameters() if p.grad is not None})
    assert set(found[0]) == set(found[1])
    for parameter, gradient in found[0].items():
        torch.testing.assert_close(found[1][parameter], gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["sparse", "multi_vector", "multi_function", "interaction"])
def test_every_kind_of_student_has_layers_to_learn(kind, collection, tiny_encoder, spread_encoder):
    student = make_student(str(tiny_encoder), kind, [0, 3])
    term = Term(name="hidden_states", teacher=str(spread_encoder))
    features, labels = batch_of(student, collection)
    [loss] = ScoreMatrixLoss(student, [term])(features, labels).values()
    loss.backward()
    assert loss > 0 and attentions(student)[-1].query.weight.grad.abs().sum() > 0


def test_a_short_training_brings_the_states_nearer(
    collection, tiny_encoder, spread_encoder, tmp_path
):
    student = make_student(str(tiny_encoder), "dense", [0, 3], max_length=32)
    terms = [Term(name="hidden_states", teacher=str(spread_encoder))]
    record = train_student(
        TrainingJob(
            student,
            pools_of(collection),
            collection.documents,
            terms,
            SETTINGS,
            tmp_path / "student",
        )
    )
    losses = [point["loss"] for point in record["curve"] if "loss" in point]
    assert losses[-1] < 0.98 * losses[0]


def test_features_of_a_head_are_compared_with_states_before_a_cross_encoders_answer(
    collection, tiny_encoder, spread_cross_encoder
):
    """By hand: the head's hidden units, and BERT's pooled state, pair by pair. Cached, too."""
    options = {"head": "iem", "hidden": 8}
    student = make_student(str(tiny_encoder), "interaction", [0, 3], options=options, seed=1)
    term = Term(name="feature_imitation", teacher=str(spread_cross_encoder))
    for parameter in student.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(2))
    features, labels = batch_of(student, collection)
    labels["mask"][1, 2:] = False  # a slate that is shorter
    student.eval()
    cross = load_cross_encoder(str(spread_cross_encoder), dtype=torch.float32)
    with torch.no_grad():
        width, (rows, size) = cross[0].auto_model.config.hidden_size, labels["mask"].shape
        other, own = torch.zeros(rows, size, width), torch.zeros(rows, size, 8)
        for row, place in labels["mask"].nonzero().tolist():
            pair = [
                labels["texts"]["queries"][row],
                labels["texts"]["documents"][labels["columns"][row, place]],
            ]
            read = cross.preprocess([pair])
            names = ("input_ids", "attention_mask", "token_type_ids")
            given = {name: read[name] for name in names if name in read}
            other[row, place] = cross[0].auto_model.bert(**given).pooler_output[0]
            vectors = torch.nn.functional.normalize(
                torch.stack([embed(student, student.preprocess([text]))[0] for text in pair])
            )
            head = student.heads
            own[row, place] = head.middle(head.inner(vectors.flatten()).relu()).relu()
        expected = objectives.feature_imitation(own, other, labels["mask"])
    assert float(expected) > 1e-3
    gradients = []
    for mini in (None, 2):
        student.zero_grad()
        parts = ScoreMatrixLoss(student, [term], mini_batch_size=mini)(features, labels)
        parts[term.label].backward()
        torch.testing.assert_close(parts[term.label], expected, atol=1e-5, rtol=1e-3)
        gradients.append(student.heads.inner.weight.grad.clone())
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)


def test_features_come_nearer_in_a_short_training(
    collection, tiny_encoder, spread_cross_encoder, tmp_path
):
    """On one batch before and after: from step to step the loss is of other slates."""
    options = {"head": "iem", "hidden": 16}
    student = make_student(str(tiny_encoder), "interaction", [0, 3], max_length=32, options=options)
    terms = [Term(name="feature_imitation", teacher=str(spread_cross_encoder))]
    features, labels = batch_of(student, collection)
    loss = ScoreMatrixLoss(student, terms)
    with torch.no_grad():
        [before] = loss(features, labels).values()
    settings = SETTINGS.model_copy(update={"steps": 40, "learning_rate": 5e-3})
    train_student(
        TrainingJob(
            student,
            pools_of(collection),
            collection.documents,
            terms,
            settings,
            tmp_path / "student",
        )
    )
    with torch.no_grad():
        [after] = loss(features, labels).values()
    assert after < 0.8 * before, (before, after)


def test_features_of_pairs_are_asked_of_a_head_only(tiny_encoder, tiny_cross_encoder):
    term = Term(name="feature_imitation", teacher=str(tiny_cross_encoder))
    with pytest.raises(InputError, match="this student has none"):
        ScoreMatrixLoss(make_student(str(tiny_encoder)), [term])
