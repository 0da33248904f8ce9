"""The student with an interaction head: its scores by hand, its start, saving, and training."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.models.load import load_encoder
from retrieval_kd.models.modules import interaction as modules
from retrieval_kd.models.modules.interaction import (
    AttentionPooling,
    InteractionEncoder,
    InteractionHead,
)
from retrieval_kd.students.interaction import InteractionStudent, score_vectors
from retrieval_kd.students.make import make_student
from retrieval_kd.students.student import student_of
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.settings import TrainSettings
from tests.students.learning import pools_of
from tests.students.stopping import assert_same_after_a_stop

QUERIES = ["sparrow wing", "anchor mast"]
DOCUMENTS = ["feather nest wing", "harbour mast anchor mast cargo tide", "violin"]
KINDS = [
    {"head": "dse"},
    {"head": "iem", "attention_heads": 4},
]


@pytest.fixture(scope="module", params=KINDS, ids=["dse", "iem"])
def model(request, tiny_encoder):
    return make_student(
        str(tiny_encoder), "interaction", [0, 3], options={"hidden": 8, **request.param}, seed=1
    )


def filled(head, seed=0):
    """With weights that no start would give."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return head


def test_a_student_saved_before_its_module_moved_still_loads(tiny_encoder, tmp_path):
    options = {"head": "iem", "attention_heads": 4}
    make_student(str(tiny_encoder), "interaction", [0, 3], options=options).save(str(tmp_path))
    listed = tmp_path / "modules.json"
    moved = listed.read_text().replace("retrieval_kd.models.modules", "retrieval_kd.elsewhere")
    assert moved != listed.read_text()
    listed.write_text(moved)
    assert load_encoder(str(tmp_path)).encode(["a"]).shape[0] == 1


@torch.no_grad()
def test_the_head_of_dse_is_its_formula():
    head = filled(InteractionHead(3, 4, "dse"))
    queries, documents = torch.randn(2, 3), torch.randn(5, 3)
    found = head.score(queries, documents)
    assert found.shape == (2, 5)
    for row, u in enumerate(queries):
        for column, v in enumerate(documents):
            pair = torch.cat([u, v, u * v, (u - v).abs()])
            hidden = (head.inner.weight @ pair + head.inner.bias).clamp(min=0)
            expected = head.outer.weight[0] @ hidden + head.outer.bias[0]
            torch.testing.assert_close(found[row, column], expected)


@torch.no_grad()
def test_the_interaction_emulation_module_is_its_formula():
    head = filled(InteractionHead(3, 4, "iem"))
    u, v = torch.randn(1, 3), torch.randn(1, 3)
    hidden = (head.inner.weight @ torch.cat([u[0], v[0]]) + head.inner.bias).clamp(min=0)
    hidden = (head.middle.weight @ hidden + head.middle.bias).clamp(min=0)
    expected = head.outer.weight[0] @ hidden + head.outer.bias[0]
    torch.testing.assert_close(head.score(u, v)[0, 0], expected)


@pytest.mark.parametrize("form", ["dse", "iem"])
def test_chunks_change_neither_scores_nor_gradients(form, monkeypatch):
    head = filled(InteractionHead(3, 4, form))
    documents = torch.randn(5, 3)

    def scored():
        queries = torch.linspace(-1, 1, 12).reshape(4, 3).requires_grad_()
        head.zero_grad()
        found = head.score(queries, documents)
        found.square().sum().backward()
        return [found.detach(), queries.grad, head.inner.weight.grad.clone()]

    whole = scored()
    monkeypatch.setattr(modules, "CHUNK", 20)  # one query at a time
    for once, chunked in zip(whole, scored(), strict=True):
        torch.testing.assert_close(chunked, once)


def test_dse_starts_as_the_similarity_of_the_encoder(tiny_encoder, tiny_dot_encoder):
    for folder, scale in ((tiny_encoder, 20.0), (tiny_dot_encoder, 1.0)):
        student = student_of(make_student(str(folder), "interaction", options={"head": "dse"}))
        found = scores(student.model)
        torch.testing.assert_close(found["score"], scale * found["vector"], atol=1e-4, rtol=1e-4)
        plain = SentenceTransformer(str(folder), device="cpu")
        expected = plain.similarity(plain.encode_query(QUERIES), plain.encode_document(DOCUMENTS))
        torch.testing.assert_close(found["vector"], expected, atol=1e-4, rtol=1e-4)


def test_attention_starts_as_the_normalised_mean_and_sees_no_padding():
    pooling = AttentionPooling(4, 2).eval()
    torch.nn.init.zeros_(pooling.linear.weight)
    states = torch.randn(1, 5, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0]])

    def pooled(states):
        features = {"token_embeddings": states, "attention_mask": mask}
        return pooling(features)["sentence_embedding"]

    mean = states[:, :3].mean(1)
    expected = torch.nn.functional.layer_norm(mean, (4,))
    torch.testing.assert_close(pooled(states), expected, atol=1e-4, rtol=1e-4)
    other = torch.cat([states[:, :3], 100 * torch.randn(1, 2, 4)], dim=1)
    assert torch.equal(pooled(other), pooled(states))


def represented(model, texts, side):
    return student_of(model).represent(model.preprocess(texts, task=side), side)


@torch.no_grad()
def scores(model):
    queries = represented(model, QUERIES, "query")
    return student_of(model).scores(queries, represented(model, DOCUMENTS, "document"))


def test_every_query_is_scored_with_every_document(model):
    student = student_of(model)
    assert isinstance(student, InteractionStudent)
    found = scores(model)
    assert {name: tuple(matrix.shape) for name, matrix in found.items()} == {
        "score": (2, 3),
        "vector": (2, 3),
    }
    queries = represented(model, QUERIES, "query")
    assert set(student.scores(queries, queries, 8)) == {"vector"}


def test_vectors_made_before_are_scored_as_texts_are(model):
    queries, documents = model.encode_query(QUERIES), model.encode_document(DOCUMENTS)
    found = score_vectors(model, queries, 3 * documents)  # cosine: their length does not matter
    np.testing.assert_allclose(found, scores(model)["score"], atol=1e-4)


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    model.save(str(tmp_path / "model"))
    opened = load_encoder(str(tmp_path / "model"), dtype=torch.float32)
    assert isinstance(opened, InteractionEncoder)
    assert weights_digest(opened) == weights_digest(model)
    torch.testing.assert_close(scores(opened)["score"], scores(model)["score"])
    if any(isinstance(module, AttentionPooling) for module in model):
        with pytest.raises(ValueError, match="trust_remote_code"):  # not another pooling instead
            SentenceTransformer(str(tmp_path / "model"), device="cpu")
    else:
        plain = SentenceTransformer(str(tmp_path / "model"), device="cpu")
        np.testing.assert_allclose(plain.encode(QUERIES), model.encode(QUERIES), atol=1e-6)
    assert opened.get_embedding_dimension() == 32


@pytest.mark.parametrize("part", ["score", "vector"])
def test_gradients_reach_the_encoder_and_the_head(model, part):
    learner = copy.deepcopy(model).train()
    filled(learner.heads)
    features = [learner.preprocess(QUERIES), learner.preprocess(DOCUMENTS)]
    labels = {
        "columns": torch.tensor([[0, 2], [1, 0]]),
        "mask": torch.ones(2, 2, dtype=torch.bool),
        "teacher": torch.tensor([[2.0, 1.0], [3.0, -1.0]]),
        "gains": torch.tensor([[1, 0], [1, 0]]),
    }
    sum(
        ScoreMatrixLoss(learner, [Term(name="mse", student=part)])(features, labels).values()
    ).backward()
    reached = {n for n, p in learner.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(name.startswith("0.") for name in reached)
    assert any(name.startswith("heads.") for name in reached) == (part == "score")


def test_the_loss_falls_and_a_stopped_training_ends_the_same(model, tiny_collection, tmp_path):
    collection = open_collection(str(tiny_collection))
    settings = TrainSettings(
        steps=20, batch_queries=6, save_steps=4, max_tokens=32, learning_rate=5e-3, eval_steps=20
    )
    terms = [
        Term(name="mse"),
        Term(name="infonce", student="vector", weight=0.1, student_temperature=0.05),
    ]

    def run(out):
        pools = pools_of(collection)
        learner = copy.deepcopy(model)
        return train_student(
            TrainingJob(learner, pools, collection.documents, terms, settings, out)
        )

    record = assert_same_after_a_stop(run, tmp_path)
    first, last = record["curve"]  # means of ten steps each
    assert last["mse"] < first["mse"]


def test_wrong_settings_are_refused(tiny_encoder):
    with pytest.raises(InputError, match="no interaction head 'mlp'"):
        make_student(str(tiny_encoder), "interaction", options={"head": "mlp"})
    with pytest.raises(InputError, match="5 attention heads cannot share 32"):
        make_student(str(tiny_encoder), "interaction", options={"attention_heads": 5})
