"""The multi-vector student: its start, that it learns, and that it loads without this project."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer

from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.students.make import make_student
from tests.students.learning import TEXTS, assert_it_learns


@pytest.fixture(scope="module")
def student(tiny_encoder) -> MultiVectorEncoder:
    return make_student(str(tiny_encoder), "multi_vector", [0, 3], dimensions=16)


def test_with_all_dimensions_it_starts_as_the_encoders_own_tokens(tiny_encoder):
    """The projection is orthonormal: where nothing is cut, every cosine of tokens stays."""
    student = make_student(str(tiny_encoder), "multi_vector", dimensions=32)
    encoder = SentenceTransformer(str(tiny_encoder), device="cpu")
    texts = [text for text in TEXTS if text]
    ours = student.encode_document(texts)
    theirs = encoder.encode(texts, output_value="token_embeddings")
    for mine, other in zip(ours, theirs, strict=True):
        other = torch.nn.functional.normalize(other, dim=-1)
        torch.testing.assert_close(mine @ mine.T, other @ other.T, atol=1e-5, rtol=1e-4)


def test_tokens_have_unit_length_and_the_dimensions_asked_for(student, tiny_encoder):
    for tokens in student.encode_query(TEXTS):
        assert tokens.shape[1] == 16
        torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(len(tokens)))
    with pytest.raises(InputError, match="at most 32"):
        make_student(str(tiny_encoder), "multi_vector", dimensions=33)


def test_a_saved_student_loads_in_plain_sentence_transformers(student, tmp_path):
    student.save(str(tmp_path / "student"))
    plain = MultiVectorEncoder(str(tmp_path / "student"), device="cpu")
    for name in ("encode_query", "encode_document"):
        mine, theirs = (
            getattr(model, name)(TEXTS, convert_to_numpy=True) for model in (student, plain)
        )
        assert all(np.array_equal(one, other) for one, other in zip(mine, theirs, strict=True))
    assert not list((tmp_path / "student").rglob("*.bin"))


def test_the_seed_decides_the_projection(student, tiny_encoder):
    made = [
        make_student(str(tiny_encoder), "multi_vector", [0, 3], dimensions=16, seed=s)
        for s in (0, 1)
    ]
    assert weights_digest(made[0]) == weights_digest(student) != weights_digest(made[1])


def test_it_learns_and_is_resumed(student, tiny_collection, tmp_path):
    trained = assert_it_learns(student, tiny_collection, tmp_path, "kl+infonce:0.5@batch")
    plain = MultiVectorEncoder(str(trained), device="cpu")
    assert plain.similarity_fn_name == "maxsim"
    assert weights_digest(plain) != weights_digest(student)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "late"}, "no kind of student 'late'"),
        ({"kind": "cross_encoder", "dimensions": 16}, "cross_encoder student has no `dimensions`"),
        ({"kind": "multi_vector", "layers": [7]}, "0 to 3"),
    ],
)
def test_what_cannot_be_made_is_explained(tiny_encoder, arguments, message):
    with pytest.raises(InputError, match=message):
        make_student(str(tiny_encoder), **arguments)
