"""Static, residual and adapter students: what they are, what they save, and who can load them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir, digest_json
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.index import Index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models.encode import document_vectors, encode_queries, finish
from retrieval_kd.models.load import load_encoder, load_retriever, model_digest
from retrieval_kd.models.projection import fit_projection
from retrieval_kd.students.adapter import make_adapter
from retrieval_kd.students.make import make_student, saved_as
from retrieval_kd.students.residual import ResidualStudent, make_residual
from retrieval_kd.students.static import StaticStudent, make_static, token_vectors
from retrieval_kd.students.student import student_of
from retrieval_kd.training.job import state_of

TEXTS = ["how do tides rise", "the moon pulls the sea", "a list of words"]


@pytest.fixture(scope="module")
def documents(tiny_collection):
    return open_collection(str(tiny_collection)).documents


@pytest.fixture(scope="module")
def residual(tiny_encoder, documents):
    return make_residual(str(tiny_encoder), documents, dimensions=64, max_length=64)


@pytest.fixture(scope="module")
def static(tiny_encoder, documents):
    return make_static(str(tiny_encoder), documents, dimensions=96)


@pytest.fixture(scope="module")
def saturated(tiny_encoder, documents):
    return make_static(str(tiny_encoder), documents, dimensions=96, saturate=True)


def test_the_table_of_a_residual_student_is_a_sketch_of_bm25(tiny_encoder, documents):
    """With many dimensions the inner product of both halves is scale² · cosine + BM25 score."""
    model = make_residual(str(tiny_encoder), documents, dimensions=20_000, max_length=64)
    module, texts = model.embedding, [document.full for document in documents.iterate()]
    query = TEXTS[:1]
    got = (encode_queries(model, query) @ model.encode_document(texts).T)[0]
    encoder = load_encoder(str(tiny_encoder), max_length=64)
    cosines = (encode_queries(encoder, query) @ encoder.encode_document(texts).T)[0]
    asked, bags = module.bags(query, "query"), module.bags(texts, "document")
    weights = module.table.log_weights.exp().detach().numpy() ** 2
    exact = np.zeros(len(texts))
    for row in range(len(texts)):
        one = bags.take(np.array([row]))
        for token, weight in zip(one.tokens, one.counts, strict=True):
            exact[row] += asked.counts[asked.tokens == token].sum() * weight * weights[token]
    np.testing.assert_allclose(got, 20 * cosines + exact, atol=0.3 * exact.max())
    assert np.corrcoef(got - 20 * cosines, exact)[0, 1] > 0.93


def test_a_static_student_loads_in_plain_sentence_transformers(static, tmp_path):
    static.save(str(tmp_path / "static"))
    plain = SentenceTransformer(str(tmp_path / "static"))
    np.testing.assert_array_equal(plain.encode(TEXTS), static.encode(TEXTS))
    assert saved_as(str(tmp_path / "static")) == "static"


def test_a_saturated_static_students_scores_are_those_of_the_formula(saturated, documents):
    """Against a count of words one by one."""
    module, texts = saturated[0], [document.full for document in documents.iterate()]
    rows = module.table.folded().numpy()
    tokens = [module.words.encode(text, add_special_tokens=False).ids for text in texts]
    mean = sum(map(len, tokens)) / len(tokens)

    def unit(weights):
        vector = sum(weight * rows[token] for token, weight in weights.items())
        return vector / np.linalg.norm(vector)

    expected = []
    for ids in tokens:
        norm = 1.2 * (0.25 + 0.75 * len(ids) / mean)
        counts = {token: ids.count(token) for token in ids}
        expected.append(unit({t: n * 2.2 / (n + norm) for t, n in counts.items()}))
    found = saturated.encode_document(texts, normalize_embeddings=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    query = "moon moon tide"
    ids = module.words.encode(query, add_special_tokens=False).ids
    asked = unit({token: ids.count(token) for token in ids})
    np.testing.assert_allclose(encode_queries(saturated, [query])[0], asked, atol=1e-5)
    assert not np.allclose(saturated.encode_document([query])[0], saturated.encode_query(query))


def test_a_saturated_static_student_loads_here_and_with_its_own_code_in_sentence_transformers(
    saturated, documents, tmp_path
):
    folder = str(tmp_path / "saturated")
    saturated.save(folder)
    plain, ours = SentenceTransformer(folder, trust_remote_code=True), load_retriever(folder)
    for encode in ("encode_query", "encode_document"):
        expected = getattr(saturated, encode)([*TEXTS, ""])
        np.testing.assert_array_equal(getattr(plain, encode)([*TEXTS, ""]), expected)
        np.testing.assert_array_equal(getattr(ours, encode)([*TEXTS, ""]), expected)
    assert saved_as(folder) == "static" and isinstance(student_of(ours), StaticStudent)
    again = make_student(folder, "static", documents=documents)
    np.testing.assert_array_equal(again.encode_query(TEXTS), saturated.encode_query(TEXTS))
    texts = [document.full for document in documents.iterate()]
    indexed = document_vectors(folder, documents)
    found = saturated.encode_document(texts, normalize_embeddings=True)
    np.testing.assert_allclose(indexed, found, atol=1e-6)


def test_any_static_model_can_be_saturated_and_keeps_its_vectors(static, documents, tmp_path):
    static.save(str(tmp_path / "static"))
    made = make_static(str(tmp_path / "static"), documents, saturate=True)
    rows = static[0].embedding.weight.detach()
    torch.testing.assert_close(made[0].table.folded(), rows, atol=1e-6, rtol=1e-5)
    unit = made.encode_query(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(unit, static.encode(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_a_static_student_starts_near_the_encoder_and_needs_few_documents_of_a_large_collection(
    tiny_encoder, documents, monkeypatch
):
    """The related part of a document's vector is close to the encoder's, without any training."""
    texts = [document.full for document in documents.iterate()]
    wanted = SentenceTransformer(str(tiny_encoder)).encode(texts)
    wanted = wanted - wanted.mean(axis=0)

    def closeness():
        made = make_static(str(tiny_encoder), documents, dimensions=96, max_length=32)
        found = made.encode(texts)[:, : wanted.shape[1]]
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        return float(((found * wanted).sum(axis=1) / lengths).mean())

    assert closeness() > 0.8
    monkeypatch.setattr("retrieval_kd.students.fit_tokens.MOST", 20)
    monkeypatch.setattr("retrieval_kd.students.static.is_encoded", lambda *_, **__: False)
    assert closeness() > 0.4


def test_a_residual_student_loads_here_and_with_its_own_code_in_sentence_transformers(
    residual, tmp_path
):
    residual.save(str(tmp_path / "residual"))
    plain = SentenceTransformer(str(tmp_path / "residual"), trust_remote_code=True)
    ours = load_retriever(str(tmp_path / "residual"))
    for encode in ("encode_query", "encode_document"):
        expected = getattr(residual, encode)(TEXTS)
        np.testing.assert_allclose(getattr(plain, encode)(TEXTS), expected, atol=1e-6)
        np.testing.assert_allclose(getattr(ours, encode)(TEXTS), expected, atol=1e-6)
    assert saved_as(str(tmp_path / "residual")) == "residual"
    assert plain.get_embedding_dimension() == residual.get_embedding_dimension() == 32 + 64


def test_a_residual_student_takes_its_encoders_vectors_from_the_cache(
    residual, tiny_encoder, documents, tmp_path, monkeypatch
):
    residual.save(str(tmp_path / "residual"))
    document_vectors(str(tiny_encoder), documents, max_length=64)
    model = load_retriever(str(tmp_path / "residual"), max_length=64)
    monkeypatch.setattr(model.embedding.encoder, "encode_document", None)  # must not be called
    vectors = document_vectors(str(tmp_path / "residual"), documents, max_length=64, model=model)
    texts = [document.full for document in documents.iterate()]
    np.testing.assert_allclose(vectors, residual.encode_document(texts), atol=1e-5)
    assert model.embedding.base_digest == model_digest(str(tiny_encoder))


def test_training_weights_apart_from_vectors_leaves_a_static_model_as_it_was(static):
    before = static.encode(TEXTS)
    StaticStudent(static).settle()
    np.testing.assert_allclose(static.encode(TEXTS), before, atol=1e-6)


def test_only_the_weights_of_a_residual_student_are_trained(residual, tiny_encoder, documents):
    assert ResidualStudent(residual).vectors == []
    both = make_residual(str(tiny_encoder), documents, dimensions=8, train_vectors=True)
    assert len(ResidualStudent(both).vectors) == 1
    assert not any(p.requires_grad for p in both.embedding.encoder.parameters())


@pytest.mark.parametrize("kind", ["static", "residual", "asymmetric"])
def test_tokens_without_a_vector_and_numbers_without_a_token(
    kind, tiny_encoder, documents, tmp_path
):
    """Some tokenizers have words that their model lacks, and leave numbers out."""
    model = SentenceTransformer(str(tiny_encoder))
    rows = len(model.tokenizer) + 4
    model[0].auto_model.resize_token_embeddings(rows, mean_resizing=False)
    model.save(str(tmp_path / "encoder"))
    file = tmp_path / "encoder" / "tokenizer.json"
    told = json.loads(file.read_text())
    told["model"]["vocab"] |= {"zebra": rows - 1, "giraffe": rows + 2}
    file.write_text(json.dumps(told))
    made = make_student(str(tmp_path / "encoder"), kind, documents=documents)
    made.save(str(tmp_path / "made"))
    table = student_of(load_encoder(str(tmp_path / "made")))
    [known, lacking] = (table.bags([word], "query") for word in ("zebra", "giraffe"))
    assert [*known.tokens, *lacking.tokens] == [rows - 1, rows + 2]
    assert made.encode_query(["zebra"]).any()


def test_related_tokens_have_related_vectors(tiny_encoder):
    """They are the encoder's own: the cosine of two tokens is that of their centred encodings."""
    encoder = load_encoder(str(tiny_encoder))
    vectors = token_vectors(encoder, str(tiny_encoder))
    whole_words = {
        word: at
        for word, at in encoder.tokenizer.get_vocab().items()
        if encoder.tokenizer(word, add_special_tokens=False)["input_ids"] == [at]
    }
    words = sorted(word for word in whole_words if word.isalpha())[:5]
    tokens = [whole_words[word] for word in words]
    assert len(tokens) == 5
    name = digest_json([1, model_digest(str(tiny_encoder))])
    whole = np.load(cache_dir() / "token-vectors" / f"{name}.npy")
    np.testing.assert_allclose(whole[tokens], encoder.encode(words), atol=1e-5)
    centred = encoder.encode(words) - whole.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors[tokens], centred, atol=1e-4)


def test_the_same_seed_makes_the_same_student(tiny_encoder, documents):
    made = [
        make_student(str(tiny_encoder), kind, dimensions=48, seed=3, documents=documents)
        for kind in ("static", "static", "residual", "residual")
    ]
    for one, other in (made[:2], made[2:]):
        np.testing.assert_array_equal(one.encode(TEXTS), other.encode(TEXTS))
    another = make_student(str(tiny_encoder), "static", dimensions=48, seed=4, documents=documents)
    assert not np.allclose(another.encode(TEXTS), made[0].encode(TEXTS))


def test_prompts_are_for_the_encoder_and_no_words_of_a_document(tiny_encoder, documents, tmp_path):
    prompted = load_encoder(str(tiny_encoder), max_length=32)
    prompted.prompts = {"query": "moon moon: ", "document": "sea sea: "}
    prompted.save(str(tmp_path / "prompted"))
    model = make_residual(str(tmp_path / "prompted"), documents, dimensions=64, max_length=32)
    model.save(str(tmp_path / "residual"))
    texts = [document.full for document in documents.iterate()]
    indexed = document_vectors(str(tmp_path / "residual"), documents)
    np.testing.assert_allclose(indexed, model.encode_document(texts), atol=1e-5)
    bare = make_residual(str(tiny_encoder), documents, dimensions=64, max_length=32)
    np.testing.assert_allclose(
        model.encode_query(TEXTS)[:, 32:], bare.encode_query(TEXTS)[:, 32:], atol=1e-5
    )
    assert not np.allclose(model.encode_query(TEXTS)[:, :32], bare.encode_query(TEXTS)[:, :32])


def test_vectors_of_a_shorter_limit_are_not_taken_for_those_of_the_whole_encoder(
    tiny_encoder, documents, tmp_path
):
    document_vectors(str(tiny_encoder), documents)  # with the encoder's own limit
    model = make_residual(str(tiny_encoder), documents, dimensions=64, max_length=8)
    model.save(str(tmp_path / "residual"))
    texts = [document.full for document in documents.iterate()]
    indexed = document_vectors(str(tmp_path / "residual"), documents)  # no limit given
    np.testing.assert_allclose(indexed, model.encode_document(texts), atol=1e-5)


def test_what_is_trained_is_a_part_of_a_trainings_identity(tiny_encoder, documents):
    states = [
        state_of(make_residual(str(tiny_encoder), documents, dimensions=8, train_vectors=trains))
        for trains in (False, True)
    ]
    assert states[0] != states[1]


def test_a_table_without_documents_or_with_layers_is_refused(tiny_encoder, documents):
    with pytest.raises(InputError, match="counts words in the collection"):
        make_student(str(tiny_encoder), "residual")
    with pytest.raises(InputError, match="has no layers to keep"):
        make_student(str(tiny_encoder), "static", [0], documents=documents)
    with pytest.raises(InputError, match="8 dimensions are fewer than the 32"):
        make_static(str(tiny_encoder), documents, dimensions=8)


def test_each_model_is_the_student_of_its_kind(static, residual):
    assert isinstance(student_of(static), StaticStudent)
    assert isinstance(student_of(residual), ResidualStudent)


@pytest.mark.parametrize("rank", [None, 3])
def test_an_adapter_starts_as_its_encoder_and_loads_in_plain_sentence_transformers(
    rank, tiny_encoder, tiny_dot_encoder, tmp_path
):
    for base in (tiny_encoder, tiny_dot_encoder):
        student = make_student(str(base), "adapter", max_length=32, options={"rank": rank})
        expected = load_encoder(str(base), max_length=32).encode(TEXTS)
        np.testing.assert_allclose(student.encode(TEXTS), expected, atol=1e-5)
        wrapped = student_of(student)
        with torch.no_grad():
            for parameter in wrapped.vectors:
                parameter.add_(0.1 * torch.randn_like(parameter))
        wrapped.settle()
        folder = str(tmp_path / base.name)
        student.save(folder)
        plain, ours = SentenceTransformer(folder), load_retriever(folder)
        assert not np.allclose(student.encode(TEXTS), expected, atol=1e-2)
        np.testing.assert_allclose(plain.encode(TEXTS), student.encode(TEXTS), atol=1e-5)
        np.testing.assert_allclose(ours.encode(TEXTS), student.encode(TEXTS), atol=1e-5)
        assert saved_as(folder) == "adapter" and ours.base_digest == model_digest(str(base))
        assert plain.similarity_fn_name == student.similarity_fn_name


def test_an_index_of_the_encoder_is_mapped_and_nothing_is_encoded_again(
    tiny_encoder, documents, tmp_path, monkeypatch
):
    student = make_adapter(str(tiny_encoder), max_length=16)
    student.dense.linear.weight.data += 0.1 * torch.randn(32, 32)
    student.save(str(tmp_path / "adapter"))
    base = document_vectors(str(tiny_encoder), documents, max_length=16)
    monkeypatch.setattr(SentenceTransformer, "encode_document", None)  # must not be called
    mapped = document_vectors(str(tmp_path / "adapter"), documents, max_length=16)
    monkeypatch.undo()
    texts = [document.full for document in documents.iterate()]
    np.testing.assert_allclose(mapped, student.encode_document(texts), atol=1e-5)
    expected = base @ student.dense.linear.weight.detach().numpy().T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(mapped, expected, atol=1e-5)


@pytest.mark.parametrize("start", [None, "pca", "whitening", "half_whitening"])
def test_a_smaller_adapter_starts_as_fitted_and_opens_in_plain_sentence_transformers(
    start, tiny_encoder, tiny_dot_encoder, documents, tmp_path
):
    for base in (tiny_encoder, tiny_dot_encoder):
        options = {"start": start} if start else {}
        student = make_student(
            str(base), "adapter", max_length=16, dimensions=5, options=options, documents=documents
        )
        vectors = document_vectors(str(base), documents, max_length=16)
        weight = fit_projection(vectors, 5, start or "half_whitening")
        np.testing.assert_array_equal(student.dense.linear.weight.detach().numpy(), weight)
        folder = str(tmp_path / f"{base.name}-{start}")
        student.save(folder)
        plain, ours = SentenceTransformer(folder), load_retriever(folder)
        assert plain.get_embedding_dimension() == ours.get_embedding_dimension() == 5
        expected = finish(encode_queries(load_encoder(str(base), max_length=16), TEXTS) @ weight.T,
                          plain.similarity_fn_name == "cosine")  # fmt: skip
        np.testing.assert_allclose(plain.encode(TEXTS), expected, atol=1e-4)
        np.testing.assert_allclose(ours.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
        again = make_student(folder, "adapter", dimensions=5, options=options, documents=documents)
        np.testing.assert_array_equal(again.dense.linear.weight.detach().numpy(), weight)


def test_an_index_of_a_smaller_adapter_has_its_width_and_its_vectors(
    tiny_encoder, tiny_collection, tmp_path
):
    collection = open_collection(str(tiny_collection))
    student = make_adapter(str(tiny_encoder), collection.documents, max_length=16, dimensions=6)
    student.save(str(tmp_path / "small"))
    build_index(collection, str(tmp_path / "small"), IndexSpec(), tmp_path / "ix")
    index = Index.open(tmp_path / "ix")
    plain = SentenceTransformer(str(tmp_path / "small"))
    assert index.manifest["dimensions"] == plain.get_embedding_dimension() == 6
    texts = [document.full for document in collection.documents.iterate()]
    expected = plain.encode("sparrow nest") @ plain.encode(texts).T
    [found] = index.search(["sparrow nest"], len(texts))
    scores = {id: score for id, score, *_ in found}
    for position, score in enumerate(expected):
        assert scores[collection.documents.id_at(position)] == pytest.approx(score, abs=1e-4)


def test_a_map_that_cannot_be_fitted_is_refused(tiny_encoder, documents):
    with pytest.raises(InputError, match="give its `documents`"):
        make_student(str(tiny_encoder), "adapter", dimensions=5)
    with pytest.raises(InputError, match="32 dimensions are not projected to 33"):
        make_student(str(tiny_encoder), "adapter", dimensions=33, documents=documents)
    with pytest.raises(InputError, match="start: "):
        make_student(str(tiny_encoder), "adapter", options={"start": "zca"}, documents=documents)


def test_an_adapter_of_an_encoder_that_cuts_its_vectors_is_refused(tiny_encoder, tmp_path):
    """Sentence Transformers cuts after the last module, so the map would meet whole vectors."""
    encoder = SentenceTransformer(str(tiny_encoder), truncate_dim=8, device="cpu")
    encoder.save(str(tmp_path / "cut"))
    with pytest.raises(InputError, match=r"cuts them to 8 dimensions.*take truncate_dim out"):
        make_adapter(str(tmp_path / "cut"))


def test_the_rank_of_an_adapter_is_that_of_its_change(tiny_encoder):
    student = student_of(make_adapter(str(tiny_encoder), rank=3))
    assert sum(p.numel() for p in student.vectors) == 2 * 3 * 32
    with torch.no_grad():
        student.factors[1].normal_()
    student.settle()
    change = student.model.dense.linear.weight.detach() - torch.eye(32)
    assert torch.linalg.matrix_rank(change, atol=1e-4) == 3
    with pytest.raises(InputError, match="no rank of 33"):
        make_adapter(str(tiny_encoder), rank=33)
    assert state_of(make_adapter(str(tiny_encoder))) != state_of(
        make_adapter(str(tiny_encoder), rank=3)
    )
