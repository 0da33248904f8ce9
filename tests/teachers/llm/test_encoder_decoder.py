"""An encoder–decoder gives what a plain transformers loop gives: monoT5's and UPR's own models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.teachers.llm.encoder_decoder import Seq2SeqModel
from retrieval_kd.teachers.llm.protocol import Prompt
from retrieval_kd.teachers.spec import open_teacher
from tests.tiny_models import write_seq2seq

PROMPTS = [
    Prompt(f"Query: {query} Document: {document} Relevant:", start=start)
    for query, document, start in (
        ("sparrow", "wing nest", ""),
        ("sail", "anchor cargo deck tide keel mast", ""),
        ("violin", "flour", "Answer:"),
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_seq2seq(tmp_path_factory.mktemp("models") / "t5")


@pytest.fixture(scope="module")
def plain(folder) -> tuple:
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(
        folder
    )


def opened(folder: Path, budget: int = 100_000) -> Seq2SeqModel:
    return Seq2SeqModel(str(folder), dtype=torch.float32, batch_tokens=budget)


def words(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def logs(plain, prompt: Prompt, given: list[int]) -> torch.Tensor:
    """Log-probabilities (given + 1, V) after the prompt's start and after each given token."""
    model, tokenizer = plain
    begun = [tokenizer.pad_token_id, *words(tokenizer, prompt.start)]
    tokens = tokenizer(prompt.user, return_tensors="pt")
    assert tokens["input_ids"][0, -1] == tokenizer.eos_token_id
    with torch.inference_mode():
        output = model(**tokens, decoder_input_ids=torch.tensor([begun + given]))
    return output.logits[0, len(begun) - 1 :].log_softmax(dim=-1)


@pytest.mark.parametrize("budget", [1, 100_000])
def test_options_are_the_decoders_first_words(folder, plain, budget):
    ids = [words(plain[1], word)[0] for word in ("true", "false")]
    expected = [logs(plain, prompt, [])[0, ids].numpy() for prompt in PROMPTS]
    got = opened(folder, budget).options(PROMPTS, ["true", "false"])
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-4)
    assert np.ptp(got) > 0.01


@pytest.mark.parametrize("budget", [1, 100_000])
def test_likelihoods_are_the_decoders(folder, plain, budget):
    continuations = ["which bird?", "keel", "a violin and a violin"]
    got = opened(folder, budget).likelihoods(PROMPTS, continuations)
    for prompt, text, values in zip(PROMPTS, continuations, got, strict=True):
        target = words(plain[1], text)
        found = logs(plain, prompt, target)
        expected = [float(found[i, token]) for i, token in enumerate(target)]
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_greedy_answers_are_the_plain_loops(folder, plain):
    model, tokenizer = plain
    got = opened(folder).generate(PROMPTS, 5)
    for prompt, answer in zip(PROMPTS, got, strict=True):
        begun = [tokenizer.pad_token_id, *words(tokenizer, prompt.start)]
        tokens = tokenizer(prompt.user, return_tensors="pt")
        written = model.generate(
            **tokens, decoder_input_ids=torch.tensor([begun]), max_new_tokens=5, do_sample=False
        )[0, len(begun) :]
        assert answer.text == tokenizer.decode(written, skip_special_tokens=True)
        assert answer.status == ("ok" if tokenizer.eos_token_id in written else "cut off")


def test_it_is_opened_by_its_kind_and_scores(folder, tiny_collection):
    collection = open_collection(str(tiny_collection))
    documents = list(collection.documents.iterate(0, 3))
    for spec in (f"yesno:{folder}?prompt=monot5", f"likelihood:{folder}"):
        teacher = open_teacher(spec, collection)
        assert isinstance(teacher.model, Seq2SeqModel)
        scores = teacher.score(["sparrow wing"] * 3, documents)
        assert np.isfinite(scores).all() and np.ptp(scores) > 0
    with pytest.raises(InputError, match="layers"):
        open_teacher(f"yesno:{folder}?layers=1", collection)
