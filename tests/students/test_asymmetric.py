"""Asymmetric students: a query without a transformer, over documents that stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.encode import document_vectors
from retrieval_kd.models.load import document_digest, load_encoder, load_retriever, model_digest
from retrieval_kd.students.asymmetric import AsymmetricStudent, make_asymmetric
from retrieval_kd.students.make import check_trainable, make_student, saved_as
from retrieval_kd.students.residual import make_residual
from retrieval_kd.students.static import make_static
from retrieval_kd.students.student import student_of

TEXTS = ["how do tides rise", "the moon pulls the sea", "a list of words"]


@pytest.fixture(scope="module")
def documents(tiny_collection):
    return open_collection(str(tiny_collection)).documents


@pytest.fixture(scope="module")
def residual(tiny_encoder, documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("residual") / "student"
    make_residual(str(tiny_encoder), documents, dimensions=64).save(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def over_dense(tiny_encoder, documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("over-dense") / "student"
    make_asymmetric(str(tiny_encoder), documents).save(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def over_residual(residual, documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("over-residual") / "student"
    make_asymmetric(residual, documents).save(str(folder))
    return str(folder)


def test_over_a_dense_encoder_it_loads_in_plain_sentence_transformers(over_dense, tiny_encoder):
    plain, ours = SentenceTransformer(over_dense), load_retriever(over_dense)
    base = load_encoder(str(tiny_encoder))
    np.testing.assert_allclose(plain.encode_query(TEXTS), ours.encode_query(TEXTS), atol=1e-6)
    for model in (plain, ours):
        np.testing.assert_allclose(
            model.encode_document(TEXTS), base.encode_document(TEXTS), atol=1e-6
        )
        np.testing.assert_array_equal(model.encode(TEXTS), model.encode_document(TEXTS))
    assert plain.similarity_fn_name == base.similarity_fn_name
    assert ours.max_seq_length == base.max_seq_length


def test_over_a_residual_student_it_loads_here_and_with_its_own_code(over_residual, residual):
    plain = SentenceTransformer(over_residual, trust_remote_code=True)
    ours, base = load_retriever(over_residual), load_encoder(residual)
    np.testing.assert_allclose(plain.encode_query(TEXTS), ours.encode_query(TEXTS), atol=1e-6)
    for model in (plain, ours):
        np.testing.assert_allclose(
            model.encode_document(TEXTS), base.encode_document(TEXTS), atol=1e-5
        )
        assert model.get_embedding_dimension() == 32 + 64


def test_the_words_of_a_query_are_the_residual_students_own(over_residual, residual):
    """A saved query is the mean of its tokens' vectors: 1 / n times the sum."""
    ours, base = load_retriever(over_residual), load_encoder(residual)
    lengths = base.embedding.bags(TEXTS, "query").lengths
    found = ours.encode_query(TEXTS) * lengths[:, None]
    np.testing.assert_allclose(found[:, 32:], base.encode_query(TEXTS)[:, 32:], atol=1e-4)


def test_the_encoders_half_has_about_the_length_it_has_in_the_residual_student(
    over_residual, residual, documents
):
    ours, base = load_retriever(over_residual), load_encoder(residual)
    texts = [" ".join(document.full.split()[:16]) for document in documents.iterate()]
    lengths = base.embedding.bags(texts, "query").lengths
    halves = ours.encode_query(texts)[:, :32] * lengths[:, None]
    scale = base.embedding.log_scale.exp().item()
    assert np.linalg.norm(halves, axis=1).mean() == pytest.approx(scale, rel=0.01)


def test_a_query_server_needs_only_the_table(over_residual):
    table = StaticEmbedding.load(f"{over_residual}/query_0_StaticEmbedding")
    alone = SentenceTransformer(modules=[table], device="cpu")
    np.testing.assert_allclose(
        alone.encode(TEXTS), load_retriever(over_residual).encode_query(TEXTS), atol=1e-6
    )


@pytest.mark.parametrize("kind", ["dense", "residual"])
def test_no_document_that_the_base_has_encoded_is_encoded_again(
    kind, request, tiny_encoder, documents, monkeypatch
):
    base = str(tiny_encoder) if kind == "dense" else request.getfixturevalue("residual")
    student = request.getfixturevalue(f"over_{kind}")
    assert document_digest(student) == model_digest(base) != model_digest(student)
    encoded = document_vectors(base, documents, max_length=48)
    monkeypatch.setattr("retrieval_kd.models.encode.load_encoder", None)  # must not be called
    np.testing.assert_array_equal(document_vectors(student, documents, max_length=48), encoded)


@pytest.mark.parametrize("kind", ["dense", "residual"])
def test_what_it_encodes_is_the_bases(kind, request, tiny_encoder, documents):
    """In the cache, under the base's digest: the base needs not encode it either."""
    base = str(tiny_encoder) if kind == "dense" else request.getfixturevalue("residual")
    encoded = document_vectors(request.getfixturevalue(f"over_{kind}"), documents, max_length=24)
    loaded = load_encoder(base, max_length=24)
    texts = [document.full for document in documents.iterate()]
    expected = loaded.encode_document(texts)
    if kind == "dense":
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded, expected, atol=1e-4)
    np.testing.assert_array_equal(document_vectors(base, documents, max_length=24), encoded)


@pytest.mark.parametrize("kind", ["dense", "residual"])
def test_training_weights_apart_from_vectors_leaves_the_queries_as_they_were(kind, request):
    model = load_encoder(request.getfixturevalue(f"over_{kind}"))
    before = model.encode_query(TEXTS)
    student = student_of(model)
    assert isinstance(student, AsymmetricStudent)
    assert (student.words is None) == (kind == "dense")
    student.settle()
    np.testing.assert_allclose(model.encode_query(TEXTS), before, atol=1e-5)


def test_prompts_of_the_base_are_read_once(tiny_encoder, documents, tmp_path):
    """A query's by every token of the table, a document's by the base."""
    prompted = load_encoder(str(tiny_encoder))
    prompted.prompts = {"query": "moon moon: ", "passage": "sea sea: "}
    prompted.save(str(tmp_path / "prompted"))
    model = make_asymmetric(str(tmp_path / "prompted"), documents)
    model.save(str(tmp_path / "student"))
    plain = SentenceTransformer(str(tmp_path / "student"))
    assert plain.prompts == {"query": "", "document": "sea sea: "}
    expected = prompted.encode_document(TEXTS)
    np.testing.assert_allclose(plain.encode_document(TEXTS), expected, atol=1e-6)
    bare = make_asymmetric(str(tiny_encoder), documents)
    assert not np.allclose(plain.encode_query(TEXTS), bare.encode_query(TEXTS))


def test_a_saved_student_is_the_start_of_another_training(over_residual, documents):
    assert saved_as(over_residual) == "asymmetric"
    again = make_student(over_residual, "asymmetric", documents=documents)
    np.testing.assert_allclose(
        again.encode_query(TEXTS), load_retriever(over_residual).encode_query(TEXTS), atol=1e-6
    )


def test_what_cannot_be_is_refused(tiny_encoder, over_dense, residual, documents, tmp_path):
    make_static(str(tiny_encoder), documents, dimensions=48).save(str(tmp_path / "static"))
    with pytest.raises(InputError, match="no transformer at its beginning"):
        make_student(str(tmp_path / "static"), "asymmetric", documents=documents)
    with pytest.raises(InputError, match="no transformer at its beginning"):
        make_student(over_dense, "residual", documents=documents)
    with pytest.raises(InputError, match="no transformer at its beginning"):
        make_student(residual, "static", documents=documents)
    with pytest.raises(InputError, match="no layers to keep"):
        make_student(str(tiny_encoder), "asymmetric", [0], documents=documents)
    with pytest.raises(InputError, match="no `dimensions`"):
        make_student(str(tiny_encoder), "asymmetric", dimensions=8, documents=documents)
    with pytest.raises(InputError, match="counts words in the collection"):
        make_student(str(tiny_encoder), "asymmetric")
    check_trainable(residual, "asymmetric")
