"""Making a shallow student, its score matrix, and that it loads without this project."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.students.dense import (
    describe_student,
    make_dense,
    score_matrix,
)


def test_the_student_keeps_the_chosen_layers(tiny_encoder):
    whole = SentenceTransformer(str(tiny_encoder), device="cpu")
    student = make_dense(str(tiny_encoder), [0, 3])
    assert describe_student(student)["layers"] == 2
    layers = whole[0].auto_model.encoder.layer
    for kept, original in zip(
        student[0].auto_model.encoder.layer, (layers[0], layers[3]), strict=True
    ):
        for name, value in kept.state_dict().items():
            assert torch.equal(value, original.state_dict()[name])


@pytest.mark.parametrize("layers", [[4], [-1], []])
def test_layers_that_are_not_there_are_refused(tiny_encoder, layers):
    with pytest.raises(InputError, match="0 to 3"):
        make_dense(str(tiny_encoder), layers)


def test_a_saved_student_loads_in_plain_sentence_transformers(tiny_encoder, tmp_path):
    student = make_dense(str(tiny_encoder), [0, 3])
    student.save(str(tmp_path / "student"))
    texts = ["sparrow nest", "rook gambit castle", ""]
    plain = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    assert np.array_equal(plain.encode(texts), student.encode(texts))
    assert not list((tmp_path / "student").rglob("*.bin"))


def test_score_matrix_equals_sentence_transformers():
    torch.manual_seed(0)
    queries, documents = torch.randn(3, 8), torch.randn(5, 8)
    from sentence_transformers.util import cos_sim, dot_score

    torch.testing.assert_close(
        score_matrix(queries, documents, "cosine"), cos_sim(queries, documents)
    )
    torch.testing.assert_close(
        score_matrix(queries, documents, "dot"), dot_score(queries, documents)
    )


def test_the_digest_is_of_the_weights(tiny_encoder):
    one, two = make_dense(str(tiny_encoder), [0, 3]), make_dense(str(tiny_encoder), [0, 2])
    assert weights_digest(one) == weights_digest(make_dense(str(tiny_encoder), [0, 3]))
    assert weights_digest(one) != weights_digest(two)


def test_a_deep_enough_stack_of_another_architecture_is_found(tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    from tests.tiny_models import tokenizer

    tok = tokenizer()
    config = DistilBertConfig(
        vocab_size=len(tok),
        dim=32,
        n_layers=3,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=64,
    )
    DistilBertModel(config).save_pretrained(tmp_path / "distil")
    tok.save_pretrained(tmp_path / "distil")
    student = make_dense(str(tmp_path / "distil"), [0, 2])
    assert describe_student(student)["layers"] == 2
    student.save(str(tmp_path / "student"))
    again = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    assert np.array_equal(again.encode(["rook"]), student.encode(["rook"]))
