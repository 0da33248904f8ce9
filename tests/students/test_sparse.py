"""The sparse student: how it begins, that it learns, and that it loads without this project."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder

from retrieval_kd.errors import InputError
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.students.make import make_student
from retrieval_kd.students.sparse import ACTIVE
from tests.students.learning import TEXTS, assert_it_learns


@pytest.fixture(scope="module")
def student(tiny_encoder) -> SparseEncoder:
    return make_student(str(tiny_encoder), "sparse", [0, 3])


def test_it_keeps_the_chosen_layers_of_the_encoder(student, tiny_encoder):
    whole = SentenceTransformer(str(tiny_encoder), device="cpu")
    kept = student[0].auto_model.bert.encoder.layer
    assert len(kept) == student[0].auto_model.config.num_hidden_layers == 2
    for one, number in zip(kept, (0, 3), strict=True):
        original = whole[0].auto_model.encoder.layer[number].state_dict()
        assert all(torch.equal(value, original[name]) for name, value in one.state_dict().items())
    assert student.max_seq_length == whole.max_seq_length


def test_the_head_starts_as_products_with_the_input_embeddings(student):
    """The transform does nothing but standardise a state, whatever the activation in it."""
    mlm = student[0].auto_model.eval()
    features = student.preprocess(TEXTS)
    with torch.no_grad():
        state = mlm.bert(**features).last_hidden_state  # (n, L, H)
        logits = mlm(**features).logits  # (n, L, V)
    embeddings = mlm.get_input_embeddings().weight
    assert mlm.get_output_embeddings().weight is embeddings
    alone = torch.nn.functional.layer_norm(state, state.shape[-1:]) @ embeddings.T
    threshold = mlm.get_output_embeddings().bias
    torch.testing.assert_close(logits, alone + threshold, atol=0.05, rtol=0.05)
    assert (threshold < 0).all()


def test_at_first_a_token_stands_for_a_few_words(student):
    words = [word for word in student.tokenizer.get_vocab() if word.isalpha() and len(word) > 2]
    found = student.encode_document(sorted(words)).to_dense()
    tokens = np.array([len(student.tokenizer.tokenize(word)) + 2 for word in sorted(words)])
    active = (found > 0).sum(1).numpy()
    assert 0 < active.mean() <= (2 * ACTIVE * tokens).mean()


def test_a_saved_student_loads_in_plain_sentence_transformers(student, tmp_path):
    student.save(str(tmp_path / "student"))
    plain = SparseEncoder(str(tmp_path / "student"), device="cpu")
    for name in ("encode_query", "encode_document"):
        mine, theirs = (getattr(model, name)(TEXTS).to_dense() for model in (student, plain))
        assert torch.equal(mine, theirs) and (mine > 0).any()
    assert not list((tmp_path / "student").rglob("*.bin"))


def test_the_same_arguments_give_the_same_weights(student, tiny_encoder, tmp_path):
    student.save(str(tmp_path / "student"))
    for source in (str(tiny_encoder), str(tmp_path / "student")):
        layers = [0, 3] if source == str(tiny_encoder) else None
        assert weights_digest(make_student(source, "sparse", layers)) == weights_digest(student)


def test_a_sparse_model_becomes_no_other_kind(student, tmp_path):
    student.save(str(tmp_path / "student"))
    with pytest.raises(InputError, match="sparse model: no multi_vector student"):
        make_student(str(tmp_path / "student"), "multi_vector")


def test_it_learns_and_is_resumed(student, tiny_collection, tmp_path):
    trained = assert_it_learns(student, tiny_collection, tmp_path, "kl+flops:0.01")
    plain = SparseEncoder(str(trained), device="cpu")
    assert plain.similarity_fn_name == "dot"
    assert weights_digest(plain) != weights_digest(student)
