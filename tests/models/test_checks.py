"""Model folders that lost a part: a file, a bit, their tokenizer's words."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import transformers
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer

from retrieval_kd.errors import InputError
from retrieval_kd.files import SEAL, seal
from retrieval_kd.models import load
from retrieval_kd.teachers.llm.rendering import open_renderer
from tests.tiny_models import tokenizer, write_seq2seq


def copied(source: Path, folder: Path, tokenizer_class: str | None = None) -> Path:
    """Copy a model; with a tokenizer's class, without the words of its tokenizer."""
    shutil.copytree(source, folder)
    if tokenizer_class:
        (folder / "tokenizer.json").unlink()
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["tokenizer_class"] = tokenizer_class
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def sealed_copy(source: Path, folder: Path) -> Path:
    """Copy a model and seal it, as a training leaves it."""
    shutil.copytree(source, folder)
    (folder / "training.json").write_text("{}")
    seal(folder)
    return folder


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)


@pytest.mark.parametrize("kind", ["BertTokenizer", "XLMRobertaTokenizer", "T5Tokenizer", "None"])
def test_a_tokenizer_without_words_is_refused(
    kind: str, tiny_encoder: Path, tiny_cross_encoder: Path, tmp_path: Path
) -> None:
    for source, open_it in (
        (tiny_encoder, load.load_retriever),
        (tiny_cross_encoder, load.load_cross_encoder),
    ):
        folder = copied(source, tmp_path / source.name, kind)
        if kind == "None":
            (folder / "tokenizer_config.json").unlink()
        with pytest.raises(InputError, match=r"tokenizer\.json is missing") as error:
            open_it(str(folder))
        assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_a_language_model_without_words_is_refused(tiny_decoder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_decoder, tmp_path / "lm", "LlamaTokenizer")
    with pytest.raises(InputError, match=r"words of the 5\d\d .*tokenizer\.json is missing"):
        load.load_language_model(str(folder))
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        open_renderer(str(folder))


def test_a_model_saved_with_an_empty_tokenizer_is_refused(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = copied(tiny_encoder, tmp_path / "e", "BertTokenizer")
    empty = load.AutoTokenizer.from_pretrained(folder)
    empty.save_pretrained(folder)
    assert (folder / "tokenizer.json").exists()
    with pytest.raises(InputError, match=r"knows 0 words of the \d+ of the model\. To fix"):
        load.load_retriever(str(folder))


@pytest.mark.parametrize(("words", "warned"), [(4_000, True), (1_000, False)])
def test_a_model_with_many_more_words_than_its_tokenizer_is_used_with_one_warning(
    words: int, warned: bool, tiny_encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load.load_encoder(str(tiny_encoder))
    known = len(model.tokenizer) - 5  # without the special tokens
    model[0].auto_model.resize_token_embeddings(words)
    model.save(str(tmp_path / "e"))
    with caplog.at_level(logging.WARNING, "retrieval_kd"):
        vectors = [
            load.load_encoder(str(f)).encode("sparrow") for f in (tmp_path / "e", tiny_encoder)
        ]
    assert (vectors[0] == vectors[1]).all()
    told = f"knows {known} words of the 4,000 of the model; check that it is its own"
    own = [r.getMessage() for r in caplog.records if r.name == "retrieval_kd"]
    assert [told in message for message in own] == [True] * warned


def test_a_tokenizer_without_a_fast_form_is_refused_with_what_can_work(
    tmp_path: Path,
) -> None:
    folder = write_seq2seq(tmp_path / "byt5")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    ByT5Tokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match=r"ByT5Tokenizer, is none.* a server run this one"):
        load.load_language_model(str(folder))
    with pytest.raises(InputError, match="To fix: leave --tokenizer out"):
        open_renderer(str(folder))


def test_a_vocabulary_of_another_kind_will_do(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_encoder, tmp_path / "e", "BertTokenizer")
    words = tokenizer().get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{w}\n" for w in sorted(words, key=words.get)))  # type: ignore[arg-type]
    vectors = [load.load_encoder(str(f)).encode("sparrow nest") for f in (folder, tiny_encoder)]
    assert (vectors[0] == vectors[1]).all()


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (flip_a_bit, "model.safetensors has changed"),
        (lambda f: (f / "modules.json").unlink(), "modules.json is missing"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda f: shutil.rmtree(f / "1_Pooling"), "1_Pooling/config.json is missing"),
        (lambda f: (f / SEAL).write_text((f / SEAL).read_text().replace("1", "2")), "its seal"),
        (lambda f: (f / SEAL).write_text("{"), "its seal"),
    ],
)
def test_a_damaged_student_is_refused(
    harm: Callable[[Path], object], problem: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = sealed_copy(tiny_encoder, tmp_path / "student")
    load.load_retriever(str(folder))
    harm(folder)
    for question in (load.kind_of, load.load_retriever, load.is_cross_encoder):
        with pytest.raises(InputError, match=f"this model is damaged: .*{problem}") as error:
            question(str(folder))
        assert str(folder) in str(error.value)


def test_a_damaged_adapter_is_refused(tiny_decoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"base_model_name_or_path": str(tiny_decoder), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"1")
    seal(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"2")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors has changed"):
        load.load_language_model(str(folder))


def test_a_checkpoint_can_be_opened(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    shutil.copytree(tiny_encoder, folder)
    seal(folder, "some training")
    assert load.load_retriever(str(folder)).encode("sparrow").shape == (32,)


def test_a_trained_model_without_its_seal_is_used_with_one_warning(
    tiny_encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = sealed_copy(tiny_encoder, tmp_path / "student")
    (folder / SEAL).unlink()
    with caplog.at_level(logging.WARNING, "retrieval_kd"):
        load.load_retriever(str(folder))
    assert [r.getMessage() for r in caplog.records] == [
        f"{folder}: there is no seal.json, so damage to this model would not be found"
    ]


@pytest.mark.parametrize("refused", [True, False])
def test_a_model_that_is_refused_prints_no_table_of_its_weights(
    refused: bool, tiny_encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    if refused:
        weights.pop(min(weights))
    weights["own"] = weights[max(weights)].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    try:
        with pytest.raises(InputError, match="no weights that fit") if refused else nullcontext():
            load.load_encoder(str(folder))
    finally:
        transformers.logging.set_verbosity(level)
    assert ("LOAD REPORT" in caplog.text) != refused


@pytest.mark.parametrize(
    ("layers", "problem"), [(2, "2 layers, and its weights have more"), (0, "0 layers"), (-1, "-1")]
)
def test_a_model_with_fewer_layers_than_weights_is_refused(
    layers: int, problem: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    with pytest.raises(InputError, match=problem):
        load.load_encoder(str(folder)).encode(["tides"])
