"""Live teachers: what they score, and that the frozen ones stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from retrieval_kd.data.collection import open_collection
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.models.load import load_multi_vector
from retrieval_kd.students.dense import make_dense
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.live_models import LiveCrossEncoder, LiveEncoder, open_live
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.settings import TrainSettings

QUERIES = ["sparrow wing", "anchor"]
DOCUMENTS = ["feather nest song", "harbour sail mast anchor cargo", "violin"]
LABELS = {
    "columns": torch.tensor([[0, 2], [1, 0]]),
    "mask": torch.tensor([[True, True], [True, False]]),
}


def test_an_encoder_scores_every_query_with_every_document(tiny_encoder):
    teacher = open_live(str(tiny_encoder), "encoder")
    scores = teacher({"queries": QUERIES, "documents": DOCUMENTS}, LABELS)["score"]
    model = SentenceTransformer(str(tiny_encoder), device="cpu")
    expected = model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS))
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    assert not scores.requires_grad


def test_a_multi_vector_teacher_gives_the_sum_of_best_matches(tiny_encoder):
    teacher = open_live(str(tiny_encoder), "multi_vector")
    scores = teacher({"queries": QUERIES, "documents": DOCUMENTS}, LABELS)["score"]
    model = teacher.model
    for row, query in enumerate(model.encode_query(QUERIES)):
        for column, text in enumerate(model.encode_document(DOCUMENTS)):
            expected = (query @ text.T).max(-1).values.sum()
            torch.testing.assert_close(scores[row, column], expected, atol=1e-4, rtol=1e-4)


def test_a_cross_encoder_is_asked_about_slates_only(tiny_cross_encoder):
    teacher = open_live(str(tiny_cross_encoder), "cross_encoder")
    scores = teacher({"queries": QUERIES, "documents": DOCUMENTS}, LABELS)["score"]
    model = CrossEncoder(str(tiny_cross_encoder), device="cpu", activation_fn=torch.nn.Identity())
    pairs = [(0, 0), (0, 2), (1, 1)]
    expected = model.predict([(QUERIES[q], DOCUMENTS[d]) for q, d in pairs])
    np.testing.assert_allclose([float(scores[p]) for p in pairs], expected, atol=1e-5)
    assert int(scores.isnan().sum()) == 3


@pytest.fixture
def trained(tiny_collection, tiny_encoder, tiny_cross_encoder, tmp_path):
    """Train a student for three steps with live teachers; gives what was left."""

    def run(terms: list[Term], live: dict, **settings) -> tuple[dict, SentenceTransformer]:
        collection = open_collection(str(tiny_collection))
        qrels = collection.qrels("train")
        pools = []
        for query, text in collection.query_texts("train").items():
            ids = [*qrels[query], *(f"chess{i}" for i in range(4))]
            ids = list(dict.fromkeys(ids))
            positions = np.array([collection.documents.position(d) for d in ids])
            gains = np.array([qrels[query].get(d, 0) for d in ids])
            pools.append(Pool(text, positions, np.full(len(ids), np.nan, np.float32), gains))
        student = make_dense(str(tiny_encoder), [0, 3])
        given = {"steps": 3, "batch_queries": 4, "slate_size": 3, "learning_rate": 1e-3, **settings}
        out = tmp_path / "student"
        record = train_student(
            TrainingJob(
                student, pools, collection.documents, terms, TrainSettings(**given), out, live=live
            )
        )
        return record, student

    return run


def test_a_frozen_teacher_teaches_and_stays_as_it_is(trained, tiny_encoder):
    teacher = open_live(str(tiny_encoder), "encoder")
    before = weights_digest(teacher.model)
    terms = [Term(name="kl", candidates="batch", teacher="big", teacher_temperature=0.05)]
    record, _ = trained(terms, {"big": teacher})
    assert weights_digest(teacher.model) == before
    assert record["curve"] and "kl_batch_from_big" in record["curve"][-1]


def test_two_models_teach_each_other_and_both_are_saved(trained, tiny_cross_encoder, tmp_path):
    """RocketQAv2: the gradient of one KL goes to both, and the re-ranker learns from labels."""
    teacher = open_live(str(tiny_cross_encoder), "cross_encoder", trains=True)
    before = weights_digest(teacher.model)
    terms = [
        Term(name="kl", teacher="reranker", joint=True),
        Term(name="infonce", student="reranker"),
    ]
    trained(terms, {"reranker": teacher})
    assert weights_digest(teacher.model) != before
    saved = CrossEncoder(str(tmp_path / "student" / "live" / "reranker"), device="cpu")
    for name, weight in saved.model.state_dict().items():
        torch.testing.assert_close(weight, teacher.model.model.state_dict()[name])


def test_without_joint_the_gradient_stays_with_the_student(trained, tiny_cross_encoder):
    teacher = open_live(str(tiny_cross_encoder), "cross_encoder", trains=True)
    before = weights_digest(teacher.model)
    trained([Term(name="kl", teacher="reranker")], {"reranker": teacher}, weight_decay=0.0)
    assert weights_digest(teacher.model) == before


def test_documents_alike_to_the_positive_set_the_margin(trained):
    record, _ = trained([Term(name="adaptive_margin", candidates="batch", teacher="positive")], {})
    assert record["curve"][-1]["adaptive_margin_batch_from_positive"] >= 0


def test_a_teacher_that_is_not_there_is_named(trained):
    from retrieval_kd.errors import InputError

    with pytest.raises(InputError, match="no scores named 'colbert'"):
        trained([Term(name="kl", teacher="colbert")], {})


def test_a_trained_cross_encoder_gives_gradients_only_where_asked(tiny_cross_encoder):
    teacher = open_live(str(tiny_cross_encoder), "cross_encoder", trains=True)
    assert isinstance(teacher, LiveCrossEncoder)
    scores = teacher({"queries": QUERIES, "documents": DOCUMENTS}, LABELS)["score"]
    scores.nansum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in teacher.model.parameters())


def test_a_frozen_encoder_has_no_dropout_in_training(tiny_encoder):
    teacher = open_live(str(tiny_encoder), "encoder")
    assert isinstance(teacher, LiveEncoder)
    teacher.train()
    assert not teacher.model.training


def test_new_weights_have_a_learning_rate_of_their_own(trained, tiny_cross_encoder):
    """At a rate of nearly zero for the rest, only what lies above the encoders moves."""
    teacher = open_live(str(tiny_cross_encoder), "cross_encoder", trains=True)
    before = {name: weight.clone() for name, weight in teacher.model.model.state_dict().items()}
    terms = [Term(name="infonce", student="reranker")]
    rates = {"learning_rate": 1e-12, "head_learning_rate": 1e-2, "weight_decay": 0.0}
    trained([*terms, Term(name="kl", teacher="reranker")], {"reranker": teacher}, **rates)
    moved = {
        name
        for name, weight in teacher.model.model.state_dict().items()
        if not torch.allclose(weight, before[name], atol=1e-6)
    }
    assert moved and all(name.startswith("classifier") for name in moved)


def test_a_live_teachers_gradients_are_clipped_too(trained, tiny_cross_encoder, monkeypatch):
    clipped = []
    real = torch.nn.utils.clip_grad_norm_

    def watch(parameters, max_norm, *args, **kwargs):
        listed = list(parameters)
        clipped.append((len(listed), max_norm))
        return real(listed, max_norm, *args, **kwargs)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watch)
    teacher = open_live(str(tiny_cross_encoder), "cross_encoder", trains=True)
    terms = [Term(name="infonce", student="reranker"), Term(name="infonce")]
    trained(terms, {"reranker": teacher}, max_grad_norm=0.5)
    of_teacher = len(list(teacher.parameters()))
    assert clipped.count((of_teacher, 0.5)) == 3  # once a step


def test_dropout_is_set_in_live_teachers_and_put_back(trained, tiny_cross_encoder):
    teacher = open_live(str(tiny_cross_encoder), "cross_encoder", trains=True)
    layers = [m for m in teacher.modules() if isinstance(m, torch.nn.Dropout)]
    before, seen = [layer.p for layer in layers], []
    layers[0].register_forward_pre_hook(lambda layer, _: seen.append(layer.p))
    trained([Term(name="infonce", student="reranker"), Term(name="infonce")], {"reranker": teacher})
    assert max(before) > 0 and set(seen) == {0.0}
    assert [layer.p for layer in layers] == before


def test_a_dense_models_projection_of_tokens_is_drawn_by_its_seed_alone(tiny_encoder):
    """Whatever was drawn before, and nothing drawn later depends on it."""
    spec = str(tiny_encoder)

    def projection(seed: int) -> torch.Tensor:
        return load_multi_vector(spec, seed=seed).state_dict()["1.linear.weight"]

    torch.manual_seed(5)
    first, after = projection(0), torch.rand(3)
    torch.manual_seed(5)
    torch.testing.assert_close(after, torch.rand(3))
    torch.testing.assert_close(projection(0), first)
    assert not torch.equal(projection(1), first)
    live = open_live(spec, "multi_vector", seed=1).model.state_dict()["1.linear.weight"]
    torch.testing.assert_close(live, projection(1))
