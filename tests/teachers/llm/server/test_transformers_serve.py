"""`rkd score --server` against a real `transformers serve`, which gives words, no probabilities."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import read_usage
from retrieval_kd.teachers.llm.protocol import Prompt
from retrieval_kd.teachers.llm.server.budget import Stopped
from retrieval_kd.teachers.llm.server.call_log import LOGS
from tests.teachers.llm.server.command import rkd, words
from tests.teachers.llm.server.proxy import Proxy
from tests.teachers.llm.server.serving import PATIENCE
from tests.teachers.llm.server.test_model import failing, on

Candidates = Callable[[int, int], Path]


@pytest.fixture
def command(tiny_collection, served_decoder, tmp_path) -> Callable[..., list[str]]:
    """The arguments of a command that asks the served decoder, here `MODEL`."""

    def arguments(teacher: str, run: Path, url: str, *more: str) -> list[str]:
        named = teacher.replace("MODEL", str(served_decoder))
        return words(tiny_collection, run, tmp_path / "store", named, "--server", url, *more)

    return arguments


def answers(tmp_path: Path) -> AnswerStore:
    store = ScoreStore(tmp_path / "store")
    [key] = store.teachers()
    return AnswerStore(store.folder(key), key)


@pytest.mark.parametrize(
    ("teacher", "wanted"),
    [("pairwise:MODEL?answer=words", 2 * 4 * 3), ("listwise:MODEL?window=3&stride=2", 2 * 2)],
)
def test_with_a_fifth_of_calls_failing_all_answers_arrive_once(
    teacher, wanted, command, transformers, candidates: Candidates, tmp_path
):
    with Proxy(transformers, failing(0.2)) as proxy:
        arguments = command(teacher, candidates(2, 4), proxy.url)
        told = rkd(arguments)
        assert "0 failed" in told and "not answered" not in told
        assert set(proxy.answered.values()) == {1}
        first = sum(proxy.answered.values())
        assert first >= wanted  # a garbled order is asked for once more
        assert len(answers(tmp_path)) == first
        assert f"{first} known, 0 answered" in rkd(arguments)
        assert sum(proxy.answered.values()) == first
    spent = read_usage(answers(tmp_path).folder)
    assert spent is not None and spent.calls == sum(proxy.calls.values())
    assert spent.prompt_tokens > 0 and spent.failed == 0


def test_what_never_comes_is_reported_as_missing_and_asked_the_next_time(
    command, transformers, candidates: Candidates, tmp_path
):
    broken: set[str] = set()

    def fault(number: int, question: str) -> str | None:
        if number == 3:
            broken.add(question)
        return "500" if question in broken else None

    with Proxy(transformers, fault) as proxy:
        arguments = command("pairwise:MODEL?answer=words", candidates(2, 3), proxy.url)
        told = rkd([*arguments, "--retries", "1"])
        assert "1 questions were not answered (1 queries are unfinished)" in told
        assert len(answers(tmp_path)) == 11
        broken.clear()
        proxy.fault = lambda number, question: None
        rkd(arguments)
        assert len(answers(tmp_path)) == 12 and set(proxy.answered.values()) == {1}


def test_killed_and_resumed_no_call_is_made_twice(
    command, transformers, candidates: Candidates, tmp_path
):
    store = tmp_path / "store"
    with Proxy(transformers) as proxy:
        proxy.hold_after = 6  # what is asked after them waits, and is never answered
        arguments = command("pairwise:MODEL?answer=words", candidates(2, 4), proxy.url)
        arguments += ["--concurrency", "2"]
        killed = subprocess.Popen(
            [sys.executable, "-m", "retrieval_kd", *arguments], env=dict(os.environ)
        )
        try:
            assert proxy.answered_enough.wait(PATIENCE)
            until(lambda: len(kept(store)) == proxy.answered.total())
        finally:
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        before = dict(proxy.answered)
        assert 6 <= len(before) < 24 and not list(store.glob("*/*.parquet"))
    with Proxy(transformers) as proxy:
        arguments[arguments.index("--server") + 1] = proxy.url
        rkd(arguments)
        assert set(proxy.answered.values()) == {1}
        assert len(proxy.answered) == 24 - len(before)
        assert not set(proxy.answered) & set(before)
    assert len(answers(tmp_path)) == 24 and not kept(store)
    spent = read_usage(answers(tmp_path).folder)
    assert spent is not None and spent.calls == 24, "those of the killed command count, once"


def kept(store: Path) -> list[str]:
    return [line for path in store.glob(f"*/{LOGS}") for line in path.read_text().splitlines()]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_limit_stops_cleanly_and_the_same_command_goes_on(
    command, transformers, candidates: Candidates, tmp_path
):
    run = candidates(2, 3)
    with Proxy(transformers) as proxy:
        limited = command("pairwise:MODEL?answer=words", run, proxy.url, "--max-tokens", "900")
        with pytest.raises(Stopped, match=r"would pass the limit.*the same command resumes"):
            rkd(limited)
        done = len(answers(tmp_path))
        assert 0 < done < 12 and done == len(proxy.answered)
        runs = 1 + sum(stopped(limited) for _ in range(12))
        rkd(limited)
        assert len(answers(tmp_path)) == 12 and set(proxy.answered.values()) == {1}
    lines = (answers(tmp_path).folder / "usage.jsonl").read_text().splitlines()
    assert len(lines) == runs + 1  # and the one that finished it
    assert all(
        json.loads(line)["prompt_tokens"] + json.loads(line)["answer_tokens"] <= 900
        for line in lines
    )


def stopped(arguments: list[str]) -> bool:
    try:
        rkd(arguments)
    except Stopped:
        return True
    return False


def test_what_needs_probabilities_says_which_teachers_do_without(transformers, served_decoder):
    model = on_served(transformers, served_decoder)
    with pytest.raises(InputError, match=r"no log-probabilities.*listwise:MODEL.*answer=words"):
        model.options([Prompt("is it relevant")], ["yes", "no"])
    with pytest.raises(InputError, match="no log-probabilities"):
        model.likelihoods([Prompt("is it relevant")], ["a query"])


def test_completions_are_what_a_model_without_a_chat_template_is_asked_by(
    transformers, served_decoder
):
    [chat] = on_served(transformers, served_decoder).generate([Prompt("violin")], 4)
    [plain] = on_served(transformers, served_decoder, api="completions").generate(
        [Prompt("violin")], 4
    )
    assert chat.status == plain.status == "cut off" and chat.text != plain.text


def on_served(url: str, folder: Path, **settings: object):
    model = on(url, **settings)
    model.name = str(folder)
    return model


def test_a_model_that_the_server_does_not_have_is_named_as_the_mistake(transformers):
    with pytest.raises(InputError, match=r"refuses the first 5.*: 400.*pinned.*model's name"):
        on(transformers).generate([Prompt("violin")] * 5, 4)
