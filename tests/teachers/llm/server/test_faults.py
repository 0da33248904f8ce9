"""Failed calls are repeated, paid for and paced, and never exceed a limit."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.llm.protocol import Prompt
from retrieval_kd.teachers.llm.server import calls
from retrieval_kd.teachers.llm.server.budget import Stopped
from retrieval_kd.teachers.llm.server.call_log import CallLog
from retrieval_kd.teachers.llm.server.calls import FEW, Calls
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from tests.teachers.llm.server.echo_server import serving
from tests.teachers.llm.server.proxy import Fault, Proxy, never
from tests.teachers.llm.server.raw_server import Reply, chat, raw_server
from tests.teachers.llm.server.test_model import failing, on

PROMPTS = [Prompt(f"is passage {number} relevant") for number in range(10, 40)]
READ, WRITTEN = len(PROMPTS[0].user), 4  # tokens of each, as `Server` counts them
GUESSED = READ + 1  # as guessed of a server that has not counted yet: a token per character

pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.001)


class Meter:
    """A server's own count of billed tokens; a character is a token."""

    def __init__(self, content: str | None = "yes") -> None:
        self.content, self.tokens = content, [0, 0]

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        read, written = len(body["messages"][-1]["content"]), body["max_completion_tokens"]
        self.tokens = [self.tokens[0] + read, self.tokens[1] + written]
        usage = {"prompt_tokens": read, "completion_tokens": written}
        message = {"role": "assistant", "content": self.content}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}


@contextmanager
def metered(fault: Fault = never, content: str | None = "yes") -> Iterator[tuple[Proxy, Meter]]:
    """A server behind a proxy, and its own count."""
    meter = Meter(content)
    with serving(meter.answer) as url, Proxy(url, fault) as proxy:
        yield proxy, meter


def first(count: int, fault: str) -> Fault:
    return lambda number, question: fault if number <= count else None


def test_an_empty_answer_is_paid_for_each_time_it_comes():
    with metered(content=None) as (proxy, meter):
        model = on(proxy.url, retries=2, max_tokens=1000)
        [one] = model.generate(PROMPTS[:1], WRITTEN)
    assert one.status == "failed" and model.usage.failed == 1 and model.usage.calls == 3
    assert model.calls.budget.spent == (3 * READ, 3 * WRITTEN) == tuple(meter.tokens)
    assert (model.usage.prompt_tokens, model.usage.answer_tokens) == tuple(meter.tokens)


@pytest.mark.parametrize(
    ("fault", "paid"),
    [("garbled", True), ("empty", True), ("cut off", True), ("500", False), ("dropped", False)],
)
def test_what_answered_is_paid_for_as_guessed_where_it_was_not_counted(fault, paid):
    with metered(first(1, fault)) as (proxy, _):
        model = on(proxy.url)
        [one] = model.generate(PROMPTS[:1], WRITTEN)
    assert one.text == "yes" and model.usage.failed == 0
    spent = model.calls.budget.spent
    assert spent == (READ + paid * GUESSED, WRITTEN + paid * WRITTEN)
    assert (model.usage.prompt_tokens, model.usage.answer_tokens) == spent


def test_a_kept_answer_says_what_all_its_attempts_took(tmp_path):
    with metered(first(2, "garbled")) as (proxy, _), CallLog(tmp_path) as log:
        model = on(proxy.url)
        model.calls.keep_in(log)
        model.generate(PROMPTS[:1], WRITTEN)
        [call] = log._calls.values()
    assert (call.calls, call.prompt_tokens) == (3, READ + 2 * GUESSED)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("by", ["tokens", "cost"])
def test_no_limit_is_passed_however_often_answers_come_garbled(by, seed):
    most = 12 * (READ + WRITTEN)
    prices = {"prompt_price": 1e6, "answer_price": 1e6}  # one for each token
    limit = {"max_tokens": most} if by == "tokens" else {"max_cost": most, **prices}
    fault = failing(0.5, ("garbled", "cut off", "500"), seed)
    with metered(fault) as (proxy, meter):
        model = on(proxy.url, concurrency=3, **limit)
        texts = [one.text for one in model.generate(PROMPTS, WRITTEN)]
        with pytest.raises(Stopped, match="would pass the limit"):
            model.generate(PROMPTS, WRITTEN)
    assert "yes" in texts and proxy.faults["garbled"] > 0
    budget = model.calls.budget
    assert sum(meter.tokens) <= sum(budget.spent) <= most
    assert (model.usage.prompt_tokens, model.usage.answer_tokens) == budget.spent
    assert budget.under_way == (0, 0)


def test_a_repeat_that_does_not_fit_is_not_sent():
    with metered(content=None) as (proxy, meter):
        model = on(proxy.url, max_tokens=3 * (READ + WRITTEN) - 1)
        [one] = model.generate(PROMPTS[:1], WRITTEN)
        assert one.status == "failed" and model.usage.failed == 1
        assert model.usage.calls == 2 and sum(meter.tokens) == 2 * (READ + WRITTEN)
        with pytest.raises(Stopped, match="would pass the limit"):
            model.generate(PROMPTS[:1], WRITTEN)


def test_all_that_goes_wrong_shares_one_number_of_repeats():
    kinds = ["busy", "garbled", "500", "busy", "garbled"]
    with metered(lambda number, question: kinds[number % len(kinds)]) as (proxy, _):
        model = on(proxy.url, retries=3)
        [one] = model.generate(PROMPTS[:1], WRITTEN)
        assert one.status == "failed" and proxy.calls.total() == 1 + 3


def test_repeats_are_paced_as_first_requests_are():
    with metered(first(4, "busy")) as (proxy, _):
        model = on(proxy.url, retries=4, per_minute=60 * 2)
        [one] = model.generate(PROMPTS[:1], WRITTEN)
    assert one.text == "yes" and model.usage.calls == 5
    assert model.usage.seconds >= 4 / 2


def test_a_repeat_waits_as_long_as_the_server_says():
    with metered(first(1, "429")) as (proxy, _):
        model = on(proxy.url)
        model.generate(PROMPTS[:1], WRITTEN)
    assert model.usage.calls == 2 and model.usage.seconds >= 1


def test_a_refused_request_among_the_first_is_missing_and_the_others_are_answered(caplog):
    with metered(first(FEW - 1, "400")) as (proxy, _):
        found = on(proxy.url, concurrency=1).generate(PROMPTS, WRITTEN)
    assert [one.status for one in found] == ["failed"] * (FEW - 1) + ["ok"] * (31 - FEW)
    [told] = [record.getMessage() for record in caplog.records if "refuses" in record.msg]
    assert told == "the server refuses a request, which is missing now: 400: broken"


def test_refusals_that_overtake_the_first_answer_stop_nothing():
    refused, overtaken = iter(range(3 * FEW)), threading.Event()

    def reply(number: int, body: dict[str, Any], key: str) -> Reply | dict[str, Any]:
        if body["messages"][-1]["content"] == PROMPTS[0].user:
            assert overtaken.wait(60)
        elif next(refused, None) is not None:
            return Reply({"error": {"message": "broken"}}, 400)
        else:
            overtaken.set()
        return chat("yes")

    with raw_server(reply, together=True) as url:
        found = on(url, concurrency=2).generate(PROMPTS, WRITTEN)
    failed = [one.status for one in found].count("failed")
    assert found[0].text == found[-1].text == "yes" and failed == 3 * FEW


def test_a_server_that_refuses_the_first_few_requests_is_not_asked_more():
    with metered(first(1000, "400")) as (proxy, _):
        model = on(proxy.url, concurrency=1)
        for prompt in PROMPTS[: FEW - 1]:
            [one] = model.generate([prompt], WRITTEN)
            assert one.status == "failed"
        with pytest.raises(InputError, match=rf"refuses the first {FEW} requests: 400: broken"):
            model.generate(PROMPTS[FEW:], WRITTEN)
        assert proxy.calls.total() == FEW


def test_after_an_error_no_call_is_under_way_nor_less_than_none():
    with metered(lambda number, question: "401" if number == 1 else "late") as (proxy, _):
        model = on(proxy.url, concurrency=3, max_tokens=1000)
        with pytest.raises(InputError, match="401"):
            model.generate(PROMPTS, WRITTEN)
        model.calls.close()
    budget = model.calls.budget
    assert budget.under_way == (0, 0) and budget.spent == (0, 0)
    assert budget.fits(1000, 0) and not budget.fits(1001, 0)


def test_after_a_signal_between_calls_they_can_still_be_closed(caplog):
    """The exit comes out of the event loop twice: from its task, and from the one that waits."""
    calls = Calls(ServerSettings(url="http://127.0.0.1:1/v1"))

    async def stopped() -> None:
        raise SystemExit(143)

    async def waiting() -> None:
        await asyncio.gather(asyncio.create_task(stopped()), asyncio.sleep(60))

    with pytest.raises(SystemExit):
        calls._run(waiting())
    calls.close()
    gc.collect()
    assert not caplog.records  # no traceback of a task
