"""A model on llama.cpp's server answers as the same model does in this process."""

from __future__ import annotations

import asyncio
import random
import re

import numpy as np
import pytest
import torch

from retrieval_kd.errors import InputError
from retrieval_kd.schema import validate
from retrieval_kd.store.usage import Usage
from retrieval_kd.teachers.llm.decoder import LocalModel
from retrieval_kd.teachers.llm.protocol import Completion, Prompt
from retrieval_kd.teachers.llm.server.budget import Stopped
from retrieval_kd.teachers.llm.server.model import ServerModel
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from tests.teachers.llm.server.proxy import FAULTS, Fault, Proxy

PROMPTS = [
    Prompt("is the passage relevant", system="you judge"),
    Prompt("violin chord tempo"),
    Prompt("query: harbour sail passage: bread oven", start="the answer is:"),
]
ATOL = 5e-3  # llama.cpp multiplies in another order
EVERY_WORD = 512  # the decoder's vocabulary: at 20, a random decoder may not name an option


def on(url: str, **settings: object) -> ServerModel:
    return ServerModel("decoder", ServerSettings(url=url, **settings))


@pytest.fixture(scope="module")
def local(served_decoder) -> LocalModel:
    return LocalModel(str(served_decoder), dtype=torch.float32)


def test_options_are_as_likely_as_in_this_process(llama, local):
    words = ["yes", "a"]  # one token each, also at the beginning of a line
    model, local.usage = on(llama, logprobs=EVERY_WORD), Usage()
    found, expected = model.options(PROMPTS[:2], words), local.options(PROMPTS[:2], words)
    np.testing.assert_allclose(found, expected, atol=ATOL)
    assert model.usage.calls == 2 and model.usage.prompt_tokens == local.usage.prompt_tokens


def test_with_the_tokenizer_words_of_several_tokens_are_told_apart_as_in_this_process(
    llama, local, served_decoder
):
    model = on(llama, logprobs=EVERY_WORD, tokenizer=str(served_decoder))
    words = ["yes", "no", "relevant"]
    np.testing.assert_allclose(
        model.options(PROMPTS, words), local.options(PROMPTS, words), atol=ATOL
    )
    texts = ["violin chord tempo melody", "sparrow wing"]
    assert model.shorten(texts, 3, "beginning") == local.shorten(texts, 3, "beginning")


def test_without_it_texts_are_cut_between_words_at_four_characters_a_token():
    model = on("http://127.0.0.1:1/v1")
    text = "violin chord tempo melody"
    assert model.shorten([text, "short"], 3) == ["violin chord", "short"]
    assert model.shorten([text, "violinchordtempo"], 3, "beginning") == [
        "tempo melody",
        "inchordtempo",
    ]


@pytest.mark.parametrize("way", ["chat", "tokens"])
def test_it_writes_what_it_writes_in_this_process(way, llama, local, served_decoder):
    settings = {"tokenizer": str(served_decoder)} if way == "tokens" else {}
    model = on(llama, **settings)
    found = model.generate(PROMPTS, 6)
    assert written(found) == written(local.generate(PROMPTS, 6))
    assert {one.status for one in found} == {"cut off"}
    assert 3 * 6 >= model.usage.answer_tokens > 0


def written(found: list[Completion]) -> list[str]:
    return [one.text for one in found]


def test_an_option_that_is_not_among_the_likeliest_is_missing_not_unlikely(llama):
    found = on(llama, logprobs=2).options(PROMPTS, ["yes", "no"])
    assert np.isnan(found).any()


def test_an_answer_is_held_to_a_form(llama):
    asked = [Prompt("order them", form=r"\[[1-3]\]( > \[[1-3]\]){2}"), Prompt("A", form="A|B")]
    order, choice = on(llama, structured=True).generate(asked, 120)
    assert choice.text in ("A", "B") and choice.status == "ok"
    # llama.cpp allows some 22 blanks between two of JSON's words: there is room for all of them
    assert order.status == "ok" and re.fullmatch(asked[0].form, order.text)


def test_a_server_without_the_prompts_probabilities_says_so(llama):
    with pytest.raises(InputError, match=r"prompt's own tokens.*only likelihood needs it"):
        on(llama).likelihoods(PROMPTS, ["a", "b", "c"])
    with pytest.raises(InputError, match="an empty text has no likelihood"):
        on(llama).likelihoods(PROMPTS, ["a", " ", "c"])


def test_it_works_where_an_event_loop_is_running(llama):
    async def notebook() -> list[str]:
        return [one.text for one in on(llama).generate(PROMPTS[:1], 4)]

    assert asyncio.run(notebook()) == [on(llama).generate(PROMPTS[:1], 4)[0].text]


def failing(share: float, faults: tuple[str, ...] = FAULTS, seed: int = 3) -> Fault:
    """Goes wrong by chance, the same in every test."""
    random_ = random.Random(seed)
    return lambda number, question: random_.choice(faults) if random_.random() < share else None


def test_what_goes_wrong_is_repeated_until_every_answer_is_there(llama, local):
    prompts = [Prompt(f"is passage {number} relevant") for number in range(40)]
    with Proxy(llama, failing(0.2)) as proxy:
        model = on(proxy.url, timeout=60)
        found = model.generate(prompts, 3)
        assert len(proxy.faults) > 2, "the draw should have several kinds"
        assert model.usage.calls == sum(proxy.calls.values()) > 40 and model.usage.failed == 0
        assert set(proxy.answered.values()) == {1}
    assert written(found) == written(local.generate(prompts, 3))


def test_a_late_answer_is_asked_for_again(llama):
    with Proxy(llama, lambda number, question: "late" if number == 1 else None) as proxy:
        model = on(proxy.url, timeout=5)
        [one] = model.generate(PROMPTS[:1], 2)
    assert one.status == "cut off" and model.usage.calls > 1


@pytest.mark.parametrize("fault", ["500", "garbled", "empty", "cut off", "dropped"])
def test_what_never_comes_is_missing_in_its_place(fault, llama):
    prompts = [Prompt(f"is passage {number} relevant") for number in range(4)]
    with Proxy(llama) as proxy:
        on(proxy.url).generate(prompts[2:3], 4)
        [broken] = proxy.calls
        proxy.fault = lambda number, question: fault if question == broken else None
        model = on(proxy.url, retries=1)
        texts = [one.text for one in model.generate(prompts, 4)]
        statuses = [one.status for one in model.generate(prompts, 4)]
    assert statuses == ["cut off", "cut off", "failed", "cut off"]
    assert texts[2] == "" and all(texts[:2] + texts[3:])
    assert model.usage.failed == 2


def test_a_server_that_is_gone_is_not_asked_for_ever(llama):
    prompts = [Prompt(f"is passage {number} relevant") for number in range(60)]
    with Proxy(llama, lambda number, question: "500" if number > 20 else None) as proxy:
        model = on(proxy.url, retries=0, concurrency=5)
        found = model.generate(prompts, 4)
        asked = sum(proxy.calls.values())
        assert [one.status for one in found].count("cut off") == 20 and asked <= 40
        with pytest.raises(Stopped, match=r"does not answer any more.*500"):
            model.generate(prompts, 4)
        assert sum(proxy.calls.values()) == asked


def test_as_many_calls_at_once_as_allowed_and_no_faster_than_allowed(llama):
    prompts = [Prompt(f"is passage {number} relevant") for number in range(12)]
    with Proxy(llama) as proxy:
        model = on(proxy.url, concurrency=3, per_minute=60 * 20)
        model.generate(prompts, 2)
        assert proxy.most_at_once <= 3
        assert model.usage.seconds >= 11 / 20


@pytest.mark.parametrize("by", ["tokens", "cost"])
def test_a_limit_is_not_passed_and_what_came_is_kept(by, llama, served_decoder):
    prompts = [Prompt(f"is passage {number} relevant") for number in range(24)]
    free = on(llama, tokenizer=str(served_decoder))
    free.generate(prompts, 4)
    half = (free.usage.prompt_tokens + free.usage.answer_tokens) // 2
    prices = {"prompt_price": 1e6, "answer_price": 1e6}  # one for each token
    limit = {"max_tokens": half} if by == "tokens" else {"max_cost": half, **prices}
    model = on(llama, tokenizer=str(served_decoder), **limit)
    statuses = [one.status for one in model.generate(prompts, 4)]
    spent = model.calls.budget.spent
    assert half - half / 6 < sum(spent) <= half
    assert spent == (model.usage.prompt_tokens, model.usage.answer_tokens)
    assert statuses == sorted(statuses) and set(statuses) == {"cut off", "failed"}
    assert model.usage.failed == 0, "what was not asked has not failed"
    with pytest.raises(Stopped, match="would pass the limit"):
        model.generate(prompts, 4)


def test_without_a_tokenizer_a_limit_holds_by_what_the_server_has_counted(llama):
    prompts = [Prompt(f"is passage {number} of these relevant") for number in range(10, 40)]
    model = on(llama, max_tokens=300)
    model.generate(prompts, 2)
    assert 200 < sum(model.calls.budget.spent) <= 300


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(llama, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-this-host")
    with Proxy(llama) as proxy:
        on(proxy.url).generate(PROMPTS[:1], 2)
        monkeypatch.setenv("RETRIEVAL_KD_API_KEY", "rk-secret")
        model = on(proxy.url)
        model.generate(PROMPTS[:1], 2)
        sent = [headers["authorization"] for headers, _ in proxy.seen]
    assert sent == ["Bearer none", "Bearer rk-secret"]
    assert "secret" not in caplog.text and "secret" not in repr(vars(model))


@pytest.mark.parametrize("url", ["http://me:pw@host/v1", "https://host/v1?api_key=pw"])
def test_an_address_with_a_secret_is_refused_without_being_shown(url):
    with pytest.raises(InputError) as caught:
        validate(ServerSettings, {"url": url})
    assert "pw" not in str(caught.value) and "environment" in str(caught.value)


def test_an_address_that_is_none_is_refused():
    with pytest.raises(InputError, match="not a server's address"):
        validate(ServerSettings, {"url": "localhost:8000"})


def test_what_is_too_long_is_missing_and_explained_if_it_is_all_there_is(llama):
    long = Prompt("violin " * 3000)
    with pytest.raises(InputError, match=r"refuses the first 5 requests: 400.*passage_tokens"):
        on(llama).generate([long] * 5, 2)
    for asked in ([long, *PROMPTS[:2]], [PROMPTS[0], long, PROMPTS[1]]):
        found = on(llama, concurrency=1).generate(asked, 2)
        assert [one.status == "failed" for one in found] == [one is long for one in asked]


def test_what_changes_an_answer_changes_the_digest(served_decoder):
    url = "http://127.0.0.1:1/v1"
    ways = [{}, {"api": "completions"}, {"structured": True}, {"tokenizer": str(served_decoder)}]
    digests = [on(url, **way).digest for way in ways] + [
        ServerModel("b", ServerSettings(url=url)).digest
    ]
    assert len(set(digests)) == 5
    assert on("http://elsewhere/v1", timeout=1, concurrency=1).digest == digests[0]
