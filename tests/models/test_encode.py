from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json
from retrieval_kd.models import encode
from retrieval_kd.models.encode import document_vectors, encode_documents, encode_queries
from retrieval_kd.models.load import load_encoder, load_retriever, model_digest
from retrieval_kd.models.vectors import sparse_rows
from tests.tiny_models import write_masked_lm


@pytest.fixture
def texts(tiny_collection: Path) -> Texts:
    return open_collection(tiny_collection).documents


@pytest.fixture
def model(tiny_encoder: Path) -> SentenceTransformer:
    return load_encoder(str(tiny_encoder))


def test_vectors_equal_those_of_sentence_transformers(
    model: SentenceTransformer, texts: Texts, tmp_path: Path
) -> None:
    vectors = encode_documents(model, texts, tmp_path / "v", digest="m", shard_size=16)
    assert isinstance(vectors, np.memmap) and vectors.dtype == np.float32
    plain = model.encode_document([document.full for document in texts.iterate()])
    np.testing.assert_allclose(vectors, plain, atol=2e-2 if "bf" in str(model.dtype) else 1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert sorted(p.name for p in (tmp_path / "v").iterdir() if p.name != ".lock") == [
        "manifest.json",
        "seal.json",
        "vectors.npy",
    ]


def test_dot_product_models_are_not_normalised(
    tiny_dot_encoder: Path, texts: Texts, tmp_path: Path
) -> None:
    model = load_encoder(str(tiny_dot_encoder))
    vectors = encode_documents(model, texts, tmp_path, digest="m")
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths.min() > 1.5
    queries = encode_queries(model, ["sparrow nest"])
    assert np.linalg.norm(queries) > 1.5
    assert read_json(tmp_path / "manifest.json")["normalised"] is False


def test_vectors_of_zeros_are_warned_of_with_their_count(
    model: SentenceTransformer, texts: Texts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_masked_lm(tmp_path / "splade")
    sparse = load_retriever(str(tmp_path / "splade"), kind="sparse")
    with caplog.at_level("WARNING", "retrieval_kd"):
        encode_documents(model, texts, tmp_path / "whole", digest="m")
        assert encode_queries(model, ["tides"]).any() and not caplog.records
        for weights in (*model.parameters(), *sparse.parameters()):
            weights.data.zero_()
        first, cached = (encode_documents(model, texts, tmp_path / "v", digest="m") for _ in "12")
        assert not first.any() and not cached.any()
        assert not encode_queries(model, ["one", "two"]).any()
        encode_queries(model, ["three"])
        assert not sparse_rows(sparse, ["one", "two", "three"], "document").nnz
    told = [record.getMessage().partition(" vectors")[0] for record in caplog.records]
    documents = "the model gave 60 of 60 documents"
    queries, rows = "the model gave 2 of 2 queries", "the model gave 3 of 3 documents"
    assert told == [documents, documents, queries, rows]


def test_a_distance_model_is_refused(model: SentenceTransformer) -> None:
    model.similarity_fn_name = "euclidean"
    with pytest.raises(InputError, match="similarity is 'euclidean'"):
        encode_queries(model, ["sparrow"])


def test_finished_shards_are_not_encoded_again(
    model: SentenceTransformer, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(encode_documents(model, texts, tmp_path / "a", digest="m", shard_size=16))
    original, sizes = encode.encode_document_texts, []

    def failing(model: Any, batch: list[str], *options: Any) -> np.ndarray:
        sizes.append(len(batch))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return original(model, batch, *options)

    monkeypatch.setattr(encode, "encode_document_texts", failing)
    with pytest.raises(KeyboardInterrupt):
        encode_documents(model, texts, tmp_path / "b", digest="m", shard_size=16)
    resumed = encode_documents(model, texts, tmp_path / "b", digest="m", shard_size=16)
    assert sizes == [16, 16, 16, 16, 12]  # the third one twice: it was not finished
    np.testing.assert_array_equal(resumed, whole)


def test_a_kill_between_merging_and_sealing_loses_no_shard(
    model: SentenceTransformer, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(encode_documents(model, texts, tmp_path / "a", digest="m", shard_size=16))

    def killed(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(encode, "seal", killed)
        encode_documents(model, texts, tmp_path / "b", digest="m", shard_size=16)
    monkeypatch.setattr(encode, "encode_document_texts", killed)
    resumed = encode_documents(model, texts, tmp_path / "b", digest="m", shard_size=16)
    np.testing.assert_array_equal(resumed, whole)


def test_shards_that_a_kill_left_beside_sealed_vectors_are_deleted(
    model: SentenceTransformer, texts: Texts, tmp_path: Path
) -> None:
    encode_documents(model, texts, tmp_path, digest="m")
    (tmp_path / ".shards-0").mkdir()
    encode_documents(model, texts, tmp_path, digest="m")
    assert not list(tmp_path.glob(".shards-*"))


def test_vectors_of_another_model_or_length_are_not_mixed_in(
    model: SentenceTransformer, texts: Texts, tmp_path: Path
) -> None:
    whole = np.array(encode_documents(model, texts, tmp_path, digest="one model"))
    model.max_seq_length = 4
    cut = np.array(encode_documents(model, texts, tmp_path, digest="one model"))
    assert not np.array_equal(cut, whole)
    assert read_json(tmp_path / "manifest.json")["max_length"] == 4
    encode_documents(model, texts, tmp_path, digest="another")
    assert read_json(tmp_path / "manifest.json")["model_digest"] == "another"


def test_vectors_that_are_not_finite_name_the_first_document(
    model: SentenceTransformer, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.ones((60, 32), np.float32)
    vectors[5, 3] = np.nan
    monkeypatch.setattr(encode, "encode_document_texts", lambda *a, **k: vectors)
    with pytest.raises(InputError, match=rf"1 vectors .* \(id {texts.id_at(5)}\)"):
        encode_documents(model, texts, tmp_path, digest="m")


def test_the_cache_encodes_once_per_model_length_and_dtype(
    tiny_encoder: Path, texts: Texts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path))
    spec = str(tiny_encoder)
    first = document_vectors(spec, texts)

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the model was loaded although nothing has to be encoded")

    monkeypatch.setattr(encode, "load_encoder", refuse)
    np.testing.assert_array_equal(document_vectors(spec, texts), first)
    with pytest.raises(AssertionError):
        document_vectors(spec, texts, max_length=4)
    assert len(model_digest(spec)) == 32


def test_no_query_gives_no_vector(model: SentenceTransformer) -> None:
    assert encode_queries(model, []).shape == (0, 32)


@pytest.mark.parametrize("name", ["vectors.npy", "manifest.json", "seal.json"])
def test_a_damaged_cache_is_encoded_again(
    name: str, tiny_encoder: Path, texts: Texts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path))
    whole = np.array(document_vectors(str(tiny_encoder), texts))
    (path,) = tmp_path.rglob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 3] ^= 0x40
    for damaged in (bytes(data), data[:-9], b"", None):
        path.write_bytes(damaged) if damaged is not None else path.unlink()
        np.testing.assert_array_equal(document_vectors(str(tiny_encoder), texts), whole)


def test_a_damaged_shard_is_encoded_again(
    model: SentenceTransformer, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(encode_documents(model, texts, tmp_path / "a", digest="m", shard_size=16))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encode, "merge_arrays", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        encode_documents(model, texts, tmp_path / "b", digest="m", shard_size=16)
    shards = sorted((tmp_path / "b").glob(".shards-*/*"))
    data = bytearray(shards[1].read_bytes())
    data[len(data) // 2] ^= 0x40
    shards[1].write_bytes(data)
    shards[2].write_bytes(data[:40])
    resumed = encode_documents(model, texts, tmp_path / "b", digest="m", shard_size=16)
    np.testing.assert_array_equal(resumed, whole)
