"""Models that are not what they seem: each is one InputError, never random weights."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from transformers import BertForSequenceClassification, RobertaConfig

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.indexing.build import build_index
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models import load
from retrieval_kd.models.layers import keep_layers
from retrieval_kd.models.names import ModelRef, resolve_model
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.students.make import make_cross_encoder, make_student
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.training.live_models import open_live
from tests.tiny_models import tokenizer

WEIGHTS = "model.safetensors"
Change = Callable[[Path], Any]


def without(part: str) -> Change:
    """Take the weights with this part in their name out of a folder."""

    def change(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        kept = {name: tensor for name, tensor in weights.items() if part not in name}
        assert len(kept) < len(weights)
        save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def write_pickle(folder: Path) -> None:
    """Put a pickle that would run code in place of the weights."""

    class Runs:
        def __reduce__(self) -> Any:
            return Path.touch, (folder / "ran",)

    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs()))


def write_half(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:200])


def edit(name: str, **values: Any) -> Change:
    """Change values of a JSON file in a folder; None takes one out."""

    def change(folder: Path) -> None:
        found = {**json.loads((folder / name).read_text()), **values}
        (folder / name).write_text(json.dumps({k: v for k, v in found.items() if v is not None}))

    return change


def changed(source: Path, folder: Path, change: Change) -> str:
    shutil.copytree(source, folder)
    change(folder)
    return str(folder)


@pytest.fixture
def static(tmp_path: Path) -> str:
    """A folder with static embeddings of 8 dimensions."""
    torch.manual_seed(0)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer(), embedding_dim=8)])
    model.save(str(tmp_path / "static"))
    return str(tmp_path / "static")


@pytest.fixture
def routed(tmp_path: Path) -> str:
    """A folder with static embeddings for queries, and others for documents."""
    torch.manual_seed(0)
    sides = [StaticEmbedding(tokenizer(), embedding_dim=8) for _ in range(2)]
    router = Router.for_query_document(query_modules=[sides[0]], document_modules=[sides[1]])
    SentenceTransformer(modules=[router]).save(str(tmp_path / "routed"))
    return str(tmp_path / "routed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layer.2."), "no weights that fit encoder.layer.2.attention.* and 15 more of Ber"),
        (without("word_embeddings"), "no weights that fit embeddings.word_embeddings.weight of"),
        (edit("config.json", intermediate_size=48), "no weights that fit encoder.layer.0"),
        (write_pickle, "UnpicklingError.* convert its weights to safetensors"),
        (write_half, "not a model SentenceTransformer can load"),
        (lambda f: (f / "1_Pooling" / "config.json").unlink(), "TypeError: .*Pooling"),
        (lambda f: shutil.rmtree(f / "1_Pooling"), "not a model SentenceTransformer can load"),
        (lambda f: (f / WEIGHTS).unlink(), "not a model SentenceTransformer can load"),
        (lambda f: (f / "config.json").write_text("{"), "not a model"),
        (lambda f: (f / "config.json").write_text("[1]"), "not a model"),
        (lambda f: (f / "modules.json").write_text("{}"), "not a model"),
        (lambda f: (f / "modules.json").write_text('[{"a": 1}]'), "not a model"),
        (lambda f: (f / "config_sentence_transformers.json").write_text("1"), "not the JSON"),
        (edit("config.json", model_type="nonesuch"), "not a model SentenceTransformer can load"),
        (edit("tokenizer_config.json", pad_token=None), "has no padding token"),
    ],
)
def test_a_damaged_encoder_is_one_mistake_that_names_the_folder(
    tiny_encoder: Path, tmp_path: Path, change: Change, message: str
) -> None:
    folder = changed(tiny_encoder, tmp_path / "broken", change)
    with pytest.raises(InputError, match=message) as error:
        load.load_retriever(folder)
    assert folder in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 700 and not (tmp_path / "broken" / "ran").exists()


def test_weights_that_nothing_reads_may_be_missing(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = changed(tiny_encoder, tmp_path / "bare", without("pooler."))
    vectors = [load.load_encoder(spec).encode("sparrow") for spec in (folder, str(tiny_encoder))]
    assert (vectors[0] == vectors[1]).all()


@pytest.mark.parametrize("part", ["classifier.", "pooler.", "layer.1."])
def test_a_cross_encoder_without_all_its_weights_is_refused(
    tiny_cross_encoder: Path, tmp_path: Path, part: str
) -> None:
    folder = changed(tiny_cross_encoder, tmp_path / "broken", without(part))
    with pytest.raises(InputError, match="they would be drawn at random"):
        load.load_cross_encoder(folder)
    if part == "layer.1.":  # a new head is wanted here, new layers are not
        with pytest.raises(InputError, match="they would be drawn at random"):
            make_cross_encoder(folder)
    else:
        assert make_cross_encoder(folder).predict([("sparrow", "nest")]).shape == (1,)


def test_an_encoder_gets_a_new_head_only_where_it_is_trained(tiny_encoder: Path) -> None:
    spec = str(tiny_encoder)
    with pytest.raises(InputError, match=r"no weights that fit classifier\.bias and 1 more"):
        load.load_cross_encoder(spec)
    with pytest.raises(InputError, match="they would be drawn at random"):
        open_live(spec, "cross_encoder")
    assert open_live(spec, "cross_encoder", trains=True).trains
    assert make_student(spec, "cross_encoder").num_labels == 1


def test_an_encoder_on_the_hub_is_no_cross_encoder(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept, commit = tmp_path / "models--acme--enc", "a" * 40
    shutil.copytree(tiny_encoder, kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    with pytest.raises(InputError, match="acme/enc: this is not a cross-encoder but BertModel"):
        CrossEncoderTeacher("acme/enc")


@pytest.mark.parametrize("labels", [2, 3])
def test_a_classifier_of_several_labels_is_refused_with_advice(
    tiny_cross_encoder: Path, tmp_path: Path, labels: int
) -> None:
    model = BertForSequenceClassification.from_pretrained(
        tiny_cross_encoder, num_labels=labels, ignore_mismatched_sizes=True
    )
    folder = tmp_path / "classes"
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match=f"has {labels} labels.*give a cross-encoder with one"):
        CrossEncoderTeacher(str(folder))
    with pytest.raises(InputError, match="no weights that fit classifier"):
        make_cross_encoder(str(folder))


def test_a_decoder_without_a_layer_is_refused(tiny_decoder: Path, tmp_path: Path) -> None:
    folder = changed(tiny_decoder, tmp_path / "broken", without("layers.1."))
    with pytest.raises(InputError, match=r"no weights that fit model\.layers\.1"):
        load.load_language_model(folder)


def test_a_cross_encoder_is_neither_indexed_nor_searched(
    tiny_cross_encoder: Path, tiny_collection: Path, tmp_path: Path
) -> None:
    opened, spec = open_collection(tiny_collection), str(tiny_cross_encoder)
    with pytest.raises(InputError, match="is a cross-encoder: it has no vectors"):
        build_index(opened, spec, IndexSpec(), tmp_path / "index")
    assert not (tmp_path / "index").exists()
    with pytest.raises(InputError, match="is a cross-encoder"):
        retrieve(opened, opened.query_texts("test"), spec, 5)
    with pytest.raises(InputError, match="no dense student can be made from it"):
        make_student(spec)


@pytest.mark.parametrize("kind", ["static", "routed"])
def test_a_model_without_a_transformer_reads_whole_texts(
    kind: str, tiny_collection: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec, opened = request.getfixturevalue(kind), open_collection(tiny_collection)
    queries = opened.query_texts("test")
    runs = [retrieve(opened, queries, spec, 5, max_length=n) for n in (None, 16)]
    assert runs[0].results == runs[1].results
    index = build_index(opened, spec, IndexSpec(), tmp_path / "index", max_length=16)
    assert len(index.search(["sparrow nest"], 3)[0]) == 3
    with pytest.raises(InputError, match="it has no transformer layers"):
        keep_layers(load.load_encoder(spec), [0])
    with pytest.raises(InputError, match=r"cannot be trained|no dense student can be made"):
        make_student(spec)


@pytest.mark.parametrize("name", ["../x", "", ".", "a..b", "a/b", "__main__", "os.path.x", "a b"])
def test_what_is_no_package_name_is_no_package(name: str) -> None:
    with pytest.raises(InputError, match="package"):
        resolve_model(f"package:{name}")


def test_positions_after_the_padding_tokens_number_are_those_that_texts_have() -> None:
    """RoBERTa's 514 positions are for 512 tokens; with 513 torch reads past its table."""
    roberta = RobertaConfig(max_position_embeddings=514, pad_token_id=1)
    ref = ModelRef("model", "model")
    load._check_length(ref, roberta, 512)
    with pytest.raises(InputError, match="reads 512 tokens, not 513"):
        load._check_length(ref, roberta, 513)
