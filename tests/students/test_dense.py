"""Making a shallow student, its score matrix, and that it loads without this project."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from retrieval_kd.errors import InputError
from retrieval_kd.models.facts import vector_size
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.students.dense import (
    describe_student,
    make_dense,
    score_matrix,
)
from tests.tiny_models import write_encoder


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


@pytest.mark.parametrize("dimensions", [48, 16])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_projection_to_another_width_is_saved_with_the_student(dimensions, normalise, tmp_path):
    base = write_encoder(tmp_path / "base", normalise=normalise, seed=1)
    student = make_dense(str(base), [0, 3], dimensions=dimensions)
    student.save(str(tmp_path / "student"))
    assert student.get_embedding_dimension() == vector_size(str(tmp_path / "student")) == dimensions
    texts = ["sparrow nest", "rook gambit castle", ""]
    plain = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    assert np.array_equal(plain.encode(texts), student.encode(texts))
    shallow = make_dense(str(base), [0, 3])
    before, after = shallow.encode(texts), student.encode(texts)
    if dimensions == 48:  # orthonormal columns: nothing is lost
        np.testing.assert_allclose(after @ after.T, before @ before.T, rtol=1e-5, atol=1e-5)
    if normalise:
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, rtol=1e-5)
    again = make_dense(str(tmp_path / "student"), dimensions=dimensions)
    assert weights_digest(again) == weights_digest(student)  # it has the width already


def test_a_projection_reads_whole_vectors_of_a_base_that_cuts_them(tiny_encoder, tmp_path):
    cut = SentenceTransformer(str(tiny_encoder), device="cpu", truncate_dim=8)
    cut.save(str(tmp_path / "cut"))
    student = make_dense(str(tmp_path / "cut"), dimensions=16)
    assert student.encode(["sparrow"]).shape == (1, 16)


def test_a_projection_is_drawn_by_its_seed_and_can_be_trained(tiny_encoder):
    one, same, other = (
        make_dense(str(tiny_encoder), dimensions=40, seed=seed) for seed in (1, 1, 2)
    )
    assert weights_digest(one) == weights_digest(same) != weights_digest(other)
    trained = {name for name, weight in one.named_parameters() if weight.requires_grad}
    assert {"2.linear.weight", "2.linear.bias"} < trained
    assert weights_digest(make_dense(str(tiny_encoder), dimensions=32)) == weights_digest(
        make_dense(str(tiny_encoder))
    )


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
