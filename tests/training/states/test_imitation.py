"""Terms on states: layers, attention and tokens of a frozen model, for students that read texts."""

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
from retrieval_kd.training.states.hooks import attention_maps, attention_states
from retrieval_kd.training.states.imitation import StateTeacher
from retrieval_kd.training.train_cross_encoder import PairLoss
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of
from tests.tiny_models import write_encoder

PAIRS = [["sparrow wing", "feather nest wing"], ["anchor", "harbour mast anchor tide cargo"]]
SETTINGS = TrainSettings(
    steps=16, batch_queries=4, max_tokens=32, learning_rate=2e-3, eval_steps=8, save_steps=16
)


@pytest.fixture(scope="module")
def collection(tiny_collection):
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def spread_encoder(tmp_path_factory, tiny_encoder) -> Path:
    """Of the same vocabulary, three layers, with other weights in their attention, so large that
    tokens attend to some others more: else all relations are alike."""
    folder = tmp_path_factory.mktemp("spread") / "encoder"
    model = make_student(str(tiny_encoder), "dense", [0, 1, 2])
    generator = torch.Generator().manual_seed(0)
    for layer in range(3):
        for linear in attention_maps(model, layer).values():
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


def projected(model: Any, features: Any, layer: int) -> list[Tensor]:
    """Queries, keys and values, by the layer's weights on the states that enter it."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: features[name] for name in names if name in features}
    states = model[0].auto_model(**inputs, output_hidden_states=True).hidden_states[layer]
    encoder = getattr(model[0].auto_model, "bert", model[0].auto_model).encoder
    own = encoder.layer[layer].attention.self
    return [states @ m.weight.T + m.bias for m in (own.query, own.key, own.value)]


def test_relations_of_pairs_are_the_three_of_the_last_and_the_chosen_layer(
    tiny_encoder, spread_encoder
):
    """Of groups of different lengths: the mean over all tokens of the batch."""
    student = make_student(str(tiny_encoder), "cross_encoder", [0, 3]).eval()
    term = Term(name="relations", teacher=str(spread_encoder), heads=4, layer=1)
    groups = [dict(student.preprocess([pair])) for pair in PAIRS]
    labels = {"mask": torch.ones(1, 2, dtype=torch.bool), "columns": torch.tensor([[0, 1]])}
    teacher = load_encoder(str(spread_encoder), dtype=torch.float32)
    with torch.no_grad():
        got = PairLoss(student, [term])(groups, labels)[term.label]
        whole = student.preprocess(PAIRS)
        sides = zip(projected(student, whole, 1), projected(teacher, whole, 1), strict=True)
        expected = sum(
            objectives.relations(own, other, whole["attention_mask"], heads=4)
            for own, other in sides
        )
    assert float(expected) > 1e-3
    torch.testing.assert_close(got, torch.as_tensor(expected), atol=1e-6, rtol=1e-4)


def expected_of(term: Term, student: Any, features: Any, labels: Any) -> Tensor:
    """A term's value by the models' own states, text by text, weighted by tokens."""
    teacher = load_encoder(term.teacher, dtype=torch.float32)
    texts = iter([*labels["texts"]["queries"], *labels["texts"]["documents"]])
    values, counts = [], []
    for group in features:
        for text in itertools.islice(texts, len(group["input_ids"])):
            alone = student.preprocess([text])
            mask = alone["attention_mask"]
            if term.name == "relations":
                pairs = zip(projected(student, alone, 1), projected(teacher, alone, 2), strict=True)
                given = {"heads": term.parameters["heads"]}
                values.append(sum(objectives.relations(s, t, mask, **given) for s, t in pairs))
            else:
                own, other = (
                    m[0].auto_model(
                        input_ids=alone["input_ids"], attention_mask=mask, output_hidden_states=True
                    )
                    for m in (student, teacher)
                )
                if term.name == "hidden_states":
                    layers = [(0, 0), (1, 2), (2, 3)]
                    sides = (own.hidden_states, other.hidden_states)
                    values.append(objectives.hidden_states(*sides, mask, layers=layers))
                else:
                    tokens = own.last_hidden_state, other.last_hidden_state
                    values.append(objectives.token_alignment(*tokens, mask, mask))
            counts.append(mask.sum())
    weights = torch.stack(counts).float()
    return (torch.stack([torch.as_tensor(v) for v in values]) * weights).sum() / weights.sum()


TERMS = {
    "hidden_states": {},
    "relations": {"heads": 4},
    "token_alignment": {},
}


@pytest.mark.parametrize("name", TERMS)
def test_a_dense_students_loss_is_the_mean_over_all_tokens_of_queries_and_documents(
    name, collection, tiny_encoder, spread_encoder
):
    """By each text alone: padding and groups change nothing. Cached gradients are the same."""
    student = make_student(str(tiny_encoder), "dense", [0, 3])
    term = Term(name=name, teacher=str(spread_encoder), **TERMS[name])
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
    given = {"hidden_states": {}, "relations": {"heads": 2, "layer": 0}}
    terms = [Term(name=name, teacher=str(spread_encoder), **more) for name, more in given.items()]
    features, labels = batch_of(student, collection)
    parts = ScoreMatrixLoss(student, terms)(features, labels)
    torch.stack(list(parts.values())).sum().backward()
    moved = attention_maps(student)["queries"].weight.grad
    assert all(part > 0 for part in parts.values()) and moved.abs().sum() > 0


def test_tokens_of_a_multi_vector_student_are_those_it_scores_by(
    collection, tiny_encoder, tmp_path
):
    """The teacher has a vocabulary of its own and more layers; only the dimensions are the same."""
    bigger = make_student(
        str(write_encoder(tmp_path / "other", seed=3)), "multi_vector", dimensions=16
    )
    bigger.tokenizer.add_tokens(["zeppelin"])
    bigger.save(str(tmp_path / "bigger"))
    student = make_student(str(tiny_encoder), "multi_vector", [0, 3], dimensions=16)
    term = Term(name="token_alignment", teacher=str(tmp_path / "bigger"))
    features, labels = batch_of(student, collection, group_size=100)
    student.eval()
    loss = ScoreMatrixLoss(student, [term])
    with torch.no_grad():
        got = loss(features, labels)[term.label]
        values, counts = [], []
        for side, texts, group in zip(
            ("query", "document"), ("queries", "documents"), features, strict=True
        ):
            own = loss.student.represent(group, side)
            read = bigger(bigger.preprocess(labels["texts"][texts], task=side), task=side)
            present = read["attention_mask"]
            pair = (own["tokens"], read["token_embeddings"], own["present"], present)
            values.append(objectives.token_alignment(*pair))
            counts.append(torch.minimum(own["present"].sum(1), present.sum(1)).sum())
    weights = torch.stack(counts).float()
    expected = (torch.stack(values) * weights).sum() / weights.sum()
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", TERMS)
def test_a_short_training_brings_the_states_nearer(
    name, collection, tiny_encoder, spread_encoder, tmp_path
):
    student = make_student(str(tiny_encoder), "dense", [0, 3], max_length=32)
    terms = [Term(name=name, teacher=str(spread_encoder), **TERMS[name])]
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


def test_queries_keys_and_values_are_captured_only_while_watched(tiny_encoder):
    model = load_encoder(str(tiny_encoder), dtype=torch.float32)
    features = model.preprocess(["sparrow nest", "rook gambit castle"])
    with torch.no_grad(), attention_states(model, 2) as states:
        model(dict(features))
        expected = projected(model, features, 2)
    for got, wanted in zip(states.values(), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    kept = dict(states)
    model(model.preprocess(["pawn"]))
    assert all(states[kind] is kept[kind] for kind in kept)


@pytest.mark.parametrize(
    ("term", "kind", "message"),
    [
        ({"name": "relations", "heads": 3}, "dense", "32 dimensions.*into 3 relation heads"),
        ({"name": "relations", "heads": 0}, "dense", "into 0 relation heads"),
        ({"name": "relations", "layer": 4}, "dense", "layer 4.*has 4 layers"),
        ({"name": "token_alignment"}, "sparse", "a sparse model does not have"),
        ({"name": "token_alignment"}, "multi_vector", "32 dimensions, the student's 16"),
    ],
)
def test_what_cannot_be_compared_is_said_before_training(term, kind, message, tiny_encoder):
    dimensions = 16 if kind == "multi_vector" else None
    student = make_student(str(tiny_encoder), kind, [0, 3], dimensions=dimensions)
    with pytest.raises(InputError, match=message):
        StateTeacher(str(tiny_encoder), student, [Term(**term, teacher=str(tiny_encoder))])


def test_an_attention_without_maps_of_its_own_is_refused(tiny_encoder):
    model = load_encoder(str(tiny_encoder))
    model[0].auto_model.encoder.layer[3].attention.self.key = torch.nn.Identity()
    with pytest.raises(InputError, match="no maps to queries, keys and values"):
        attention_maps(model)


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
