"""OpenVINO's graphs give the model's own numbers, are exported once and named in every key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models import encode_texts, graphs
from retrieval_kd.models.encode import document_vectors
from retrieval_kd.models.encode_texts import encode_document_texts
from retrieval_kd.models.load import load_encoder
from retrieval_kd.students.adapter import make_adapter
from retrieval_kd.students.asymmetric import make_asymmetric
from retrieval_kd.students.residual import make_residual
from retrieval_kd.students.static import make_static
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.teachers.pointwise.retrievers import DenseTeacher
from tests.tiny_models import write_decoder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def collection(tiny_collection):
    return open_collection(tiny_collection)


def test_a_backend_must_exist(tiny_cross_encoder, monkeypatch):
    with pytest.raises(InputError, match=r"no backend 'tensorrt'.*choose from torch, openvino"):
        CrossEncoderTeacher(str(tiny_cross_encoder), backend="tensorrt")
    monkeypatch.setenv("RETRIEVAL_KD_BACKEND", "fast")
    with pytest.raises(InputError, match="RETRIEVAL_KD_BACKEND: no backend 'fast'"):
        CrossEncoderTeacher(str(tiny_cross_encoder))


def test_a_backend_without_its_package_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package openvino.*retrieval_kd\[openvino\]"):
        graphs.chosen_backend("openvino")


def test_keys_name_the_backend(tiny_cross_encoder, collection, monkeypatch):
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: True)
    keys = [
        CrossEncoderTeacher(str(tiny_cross_encoder), backend=name, dtype=torch.float32).key
        for name in graphs.BACKENDS
    ]
    assert [key.dtype.split(" Python")[0] for key in keys] == [
        "float32",
        "openvino float32",
        "openvino int8 float32",
    ]
    assert len({key.fingerprint for key in keys}) == 3


@pytest.mark.parametrize("prompt", [None, "passage: "])
def test_documents_are_encoded_as_sentence_transformers_does(prompt, tiny_encoder, collection):
    model = load_encoder(str(tiny_encoder), dtype=torch.float32)
    texts = [document.full for document in collection.documents.iterate()] + [""]
    expected = model.encode_document(texts, prompt=prompt)
    np.testing.assert_allclose(encode_document_texts(model, texts, prompt), expected, atol=1e-5)


def test_the_models_own_prompt_is_put_before_documents(tiny_encoder):
    model = load_encoder(str(tiny_encoder), dtype=torch.float32)
    model.prompts = {"passage": "sparrow nest ", "query": "tide "}
    expected = model.encode_document(["the sea"])
    np.testing.assert_allclose(encode_document_texts(model, ["the sea"], None), expected, atol=1e-5)
    plain = model.encode_document(["the sea"], prompt="")
    np.testing.assert_allclose(encode_document_texts(model, ["the sea"], ""), plain, atol=1e-5)
    assert np.abs(plain - expected).max() > 1e-3


def test_a_graph_scores_as_the_model_and_is_exported_once(
    tiny_cross_encoder, collection, cache, monkeypatch
):
    pytest.importorskip("openvino")
    documents = list(collection.documents.iterate(0, 30))
    queries = ["sparrow nest", "tides of the sea", "a"] * 10
    plain = CrossEncoderTeacher(str(tiny_cross_encoder), dtype=torch.float32)
    expected = plain.score(queries, documents)
    for _ in range(2):
        teacher = CrossEncoderTeacher(
            str(tiny_cross_encoder), dtype=torch.float32, backend="openvino", batch_tokens=64
        )
        np.testing.assert_allclose(teacher.score(queries, documents), expected, atol=1e-5)
        monkeypatch.setattr(graphs, "_export", None)  # must not be called again
    assert len(list((cache / "graphs").glob("*/graph.xml"))) == 1


def test_a_graph_encodes_as_the_model(tiny_encoder, collection, monkeypatch):
    pytest.importorskip("openvino")
    texts = collection.documents
    expected = document_vectors(str(tiny_encoder), texts, dtype=torch.float32)
    monkeypatch.setenv("RETRIEVAL_KD_BACKEND", "openvino")
    got = document_vectors(str(tiny_encoder), texts, dtype=torch.float32)
    assert got.filename != expected.filename
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_damaged_graph_is_exported_again(tiny_cross_encoder, collection, cache):
    pytest.importorskip("openvino")
    documents = list(collection.documents.iterate(0, 3))

    def scores() -> np.ndarray:
        teacher = CrossEncoderTeacher(
            str(tiny_cross_encoder), dtype=torch.float32, backend="openvino"
        )
        return teacher.score(["sparrow nest", "tides", "a"], documents)

    expected = scores()
    path = next((cache / "graphs").glob("*/graph.bin"))
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(scores(), expected)
    assert path.stat().st_size > 100


def test_a_model_that_openvino_does_not_convert_is_named(
    tiny_cross_encoder, collection, monkeypatch
):
    pytest.importorskip("openvino")
    monkeypatch.setattr(graphs, "_export", lambda *_: 1 / 0)
    teacher = CrossEncoderTeacher(str(tiny_cross_encoder), backend="openvino")
    documents = list(collection.documents.iterate(0, 1))
    with pytest.raises(InputError, match=r"openvino does not run this model.*\?backend=torch"):
        teacher.score(["sparrow"], documents)


def test_ranges_of_int8_are_those_of_the_length(tiny_cross_encoder, monkeypatch):
    """Otherwise the first length's graph would score for all, under their keys."""
    digests = []
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(
        "retrieval_kd.teachers.pointwise.cross_encoder.Graph",
        lambda *_, digest, **__: digests.append(digest),
    )
    for backend in ("openvino-int8", "openvino"):
        for length in (16, 32):
            teacher = CrossEncoderTeacher(
                str(tiny_cross_encoder), max_length=length, backend=backend
            )
            assert teacher.graph is None
    assert len(set(digests[:2])) == 2 and len(set(digests[2:])) == 1


def test_torch_encodes_what_a_graph_cannot_and_says_so_once(tiny_encoder, monkeypatch, caplog):
    """The variable is for all models of a command: a static student must not end it."""
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: True)
    model = load_encoder(str(tiny_encoder))
    model.append(torch.nn.Identity())
    expected = encode_document_texts(model, ["one"], None)
    monkeypatch.setenv("RETRIEVAL_KD_BACKEND", "openvino")
    for _ in range(2):
        got = encode_document_texts(model, ["one"], None, "digest")
        np.testing.assert_array_equal(got, expected)
    assert caplog.text.count("torch encodes these documents") == 1


def test_torch_encodes_what_openvino_does_not_convert(tiny_encoder, monkeypatch, caplog):
    pytest.importorskip("openvino")
    model = load_encoder(str(tiny_encoder), dtype=torch.float32)
    expected = encode_document_texts(model, ["one"], None)
    monkeypatch.setenv("RETRIEVAL_KD_BACKEND", "openvino")
    monkeypatch.setattr(graphs, "_export", lambda *_: 1 / 0)
    for _ in range(2):
        got = encode_document_texts(model, ["one"], None, "digest")
        np.testing.assert_array_equal(got, expected)
    assert caplog.text.count("torch encodes these documents") == 1


@pytest.mark.parametrize("kind", ["static", "residual", "asymmetric", "adapter"])
def test_students_that_are_tables_run_under_any_backend(
    kind, tiny_encoder, collection, tmp_path, monkeypatch
):
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(encode_texts, "_graph", lambda *_: None)  # of the encoder below them
    texts = collection.documents
    made = {
        "static": make_static, "residual": make_residual,
        "asymmetric": make_asymmetric, "adapter": make_adapter,
    }[kind](str(tiny_encoder), texts)  # fmt: skip
    made.save(str(tmp_path / kind))
    expected = document_vectors(str(tmp_path / kind), texts, dtype=torch.float32)
    monkeypatch.setenv("RETRIEVAL_KD_BACKEND", "openvino")
    got = document_vectors(str(tmp_path / kind), texts, dtype=torch.float32)
    np.testing.assert_array_equal(got, expected)
    teacher = DenseTeacher(collection, str(tmp_path / kind))
    monkeypatch.setattr(teacher, "_vectors", lambda documents: teacher._encode(documents))
    assert np.isfinite(teacher.score(["sparrow"], ["the sparrow's nest"])).all()


def test_a_text_without_a_token_has_the_vector_that_it_has_among_others(tmp_path, monkeypatch):
    """A decoder's tokenizer adds none, and OpenVINO's attention to none is NaN."""
    pytest.importorskip("openvino")
    base = write_decoder(tmp_path / "decoder", chat=False)
    model = SentenceTransformer(str(base), device="cpu")
    texts = ["sparrow nest", "", "tide"]
    expected = model.encode_document(texts)
    np.testing.assert_allclose(encode_document_texts(model, texts, None), expected, atol=1e-5)
    assert np.isfinite(encode_document_texts(model, [""], None)).all()
    monkeypatch.setenv("RETRIEVAL_KD_BACKEND", "openvino")
    got = encode_document_texts(model, texts, None, "digest")
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_nothing_is_told_to_anyone_when_a_model_is_converted():
    """OpenVINO's converter asks for consent in a terminal, and sends what it converts."""
    code = (
        "import sys; from retrieval_kd.models.graphs import silent_openvino; "
        "openvino = silent_openvino(); openvino.convert_model; "
        "from openvino.tools.ovc import telemetry_utils; "
        "assert telemetry_utils.tm.__name__ == 'openvino.tools.ovc.telemetry_stub'"
    )
    pytest.importorskip("openvino")
    subprocess.run([sys.executable, "-c", code], check=True)
