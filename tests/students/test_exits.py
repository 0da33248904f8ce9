"""Exits are students: what an exit scores is what the cut student scores."""

from __future__ import annotations

import pytest
import torch

from retrieval_kd.errors import InputError
from retrieval_kd.students.dense import DenseStudent, make_dense
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.terms import Term

TEXTS = ["sparrow wing feather", "anchor"]


def test_an_exits_vector_is_that_of_the_student_cut_there(tiny_encoder):
    model = make_dense(str(tiny_encoder)).eval()
    student = DenseStudent(model)
    student.exits = (0, 2)
    with torch.no_grad():
        found = student.represent(model.preprocess(TEXTS), "document")
        plain = DenseStudent(model).represent(model.preprocess(TEXTS), "document")
        for number in student.exits:
            cut = make_dense(str(tiny_encoder), range(number + 1)).eval()
            alone = DenseStudent(cut).represent(cut.preprocess(TEXTS), "document")["vector"]
            torch.testing.assert_close(found[f"exit{number}"], alone)
    torch.testing.assert_close(found["vector"], plain["vector"])
    assert set(student.scores(found, found)) == {"score", "exit0", "exit2"}


def test_no_hook_is_left_behind(tiny_encoder):
    model = make_dense(str(tiny_encoder))
    student = DenseStudent(model)
    student.exits = (1,)
    student.represent(model.preprocess(TEXTS), "query")
    assert not any(module._forward_hooks for module in model.modules())


def test_the_last_layer_is_no_exit(tiny_encoder):
    model = make_dense(str(tiny_encoder), [0, 3])
    student = DenseStudent(model)
    student.exits = (1,)
    with pytest.raises(InputError, match="exit1 is not below the last of 2 layers"):
        student.represent(model.preprocess(TEXTS), "query")


def _batch(model):
    features = [model.preprocess(TEXTS), model.preprocess([*TEXTS, "violin chord"])]
    gains = torch.tensor([[1, 0, 0], [0, 1, 0]])
    labels = {
        "columns": torch.tensor([[0, 2], [1, 2]]),
        "mask": torch.ones(2, 2, dtype=torch.bool),
        "batch_gains": gains,
        "batch_mask": torch.ones(2, 3, dtype=torch.bool),
        "batch_teacher": torch.zeros(2, 3),
    }
    return features, labels


def test_an_upper_exit_teaches_a_lower_one(tiny_encoder):
    model = make_dense(str(tiny_encoder)).eval()
    terms = [Term(name="kl", candidates="batch", student="exit0", teacher="score")]
    loss = ScoreMatrixLoss(model, terms)
    parts = loss(*_batch(model))
    assert list(parts) == ["kl_batch_exit0_from_score"]
    parts["kl_batch_exit0_from_score"].backward()
    layers = model[0].auto_model.encoder.layer
    assert layers[0].output.dense.weight.grad.abs().sum() > 0
    assert layers[3].output.dense.weight.grad is None  # the teacher's side is detached


def test_layers_learn_from_layers_of_a_live_teacher(tiny_encoder):
    from retrieval_kd.training.live_models import open_live

    model = make_dense(str(tiny_encoder), [0, 3]).eval()
    big = open_live(str(tiny_encoder), "encoder")
    term = Term(name="layer_relevance", student="exit0,score", teacher="big.exit1,big")
    features, labels = _batch(model)
    labels["texts"] = {"queries": TEXTS, "documents": [*TEXTS, "violin chord"]}
    parts = ScoreMatrixLoss(model, [term], live={"big": big})(features, labels)
    loss = parts[term.label]
    assert loss > 0
    pairs = {"student": "exit1,score", "teacher": "big.exit1,big"}
    same = Term(name="layer_relevance", **pairs, student_temperature=1)
    whole = make_dense(str(tiny_encoder)).eval()
    equal = ScoreMatrixLoss(whole, [same], live={"big": big})(features, labels)[same.label]
    torch.testing.assert_close(equal, torch.tensor(0.0), atol=1e-5, rtol=0)


def test_layers_must_be_paired():
    with pytest.raises(ValueError, match="as many"):
        Term(name="layer_relevance", student="exit0,score", teacher="big")
