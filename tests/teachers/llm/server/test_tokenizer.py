"""With the tokenizer here, a server is sent this process's tokens, and its spelling is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.llm.protocol import Prompt
from tests.teachers.llm.server.echo_server import echo_server, serving
from tests.teachers.llm.server.proxy import Proxy
from tests.teachers.llm.server.test_model import on
from tests.tiny_models import CHAT_TEMPLATE, write_decoder

pytest.importorskip("openai")


def test_after_a_special_token_likelihoods_are_of_the_tokens_of_this_process(tmp_path: Path):
    folder = write_decoder(tmp_path / "decoder")
    template = CHAT_TEMPLATE.replace("<|assistant|>\n", "<|assistant|>")
    assert template != CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(template)
    local = LocalModel(str(folder), dtype=torch.float32)
    prompts, queries = [Prompt("violin chord"), Prompt("tide", system="é")], ["harbour", "no oven"]
    rendered = [local.renderer.render(prompt) for prompt in prompts]
    assert all(text.endswith("<|assistant|>") for text in rendered)
    tokens, _ = local.renderer.continued(rendered, queries)
    with echo_server(local) as url, Proxy(url) as proxy:
        model = on(proxy.url, tokenizer=str(folder), concurrency=1)
        found = model.likelihoods(prompts, queries)
        sent = [json.loads(body)["prompt"] for _, body in proxy.seen]
    assert sent == tokens
    for one, other in zip(found, local.likelihoods(prompts, queries), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer that marks spaces by ▁, as Llama 2's and Mistral's do."""
    words = ["<unk>", "▁is", "▁it", "▁so", "▁yes", "▁no", "yes", "no"]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    folder = tmp_path_factory.mktemp("spaces") / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>").save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("named", "logs"),
    [
        ([(" yes", -0.8), ("yes", -1.2), (" no", -2.0)], [-0.8, -2.0]),
        ([("yes", -0.5), (" no", -2.0)], [np.nan, -2.0]),  # the other "yes", without a space
        ([("yes", -0.8), ("so", -1.2), ("no", -2.0)], [-0.8, -2.0]),  # no space is ever named
        ([("yes", -0.8), ("no", -1.2), ("yes", -2.0)], [np.nan, -1.2]),  # one of them has a space
    ],
)
def test_a_space_that_a_token_begins_with_is_found_in_each_spelling(spaces, named, logs):
    tops = [{"token": token, "logprob": log} for token, log in named]
    content = [{"token": named[0][0], "logprob": named[0][1], "top_logprobs": tops}]
    choice = {"index": 0, "text": "yes", "logprobs": {"content": content}}
    with serving(lambda body: {"choices": [choice]}) as url:
        model = on(url, tokenizer=spaces)
        assert model.renderer.tokenizer.decode([4]) == "yes", "what makes this hard"
        found = model.options([Prompt("is it so")], ["yes", "no"])
    np.testing.assert_array_equal(found, np.array([logs], np.float32))
