"""What calls may cost, what they did cost, and that none is made twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.errors import InputError
from retrieval_kd.schema import validate
from retrieval_kd.store.usage import Spent, read_usage, record_usage
from retrieval_kd.teachers.llm.server.budget import Budget, Stopped
from retrieval_kd.teachers.llm.server.call_log import LOGS, Call, CallLog
from retrieval_kd.teachers.llm.server.settings import ServerSettings

TOKENS = st.integers(1, 50)
CALLS = st.lists(st.tuples(TOKENS, TOKENS, st.integers(0, 50), st.integers(0, 3)), max_size=20)


def budget_of(**limits: float) -> Budget:
    return Budget(validate(ServerSettings, {"url": "http://127.0.0.1:9/v1", **limits}))


@given(CALLS, st.integers(0, 400), st.integers(1, 5))
def test_what_is_spent_never_passes_a_limit(calls, most, workers):
    budget, began = budget_of(max_tokens=most), []

    async def call(prompt: int, answer: int, written: int, steps: int) -> None:
        await budget.begin(prompt, answer)
        began.append(prompt + answer)
        for _ in range(steps):  # others begin and end meanwhile
            await asyncio.sleep(0)
        budget.settle(prompt, answer, (prompt, min(answer, written)))

    async def work(todo) -> None:
        for one in todo:
            await call(*one)

    async def all_of_them() -> list[BaseException | None]:
        todo = iter(calls)
        return await asyncio.gather(*(work(todo) for _ in range(workers)), return_exceptions=True)

    ends = asyncio.run(all_of_them())
    assert sum(budget.spent) <= most and budget.under_way == (0, 0)
    assert all(end is None or isinstance(end, Stopped) for end in ends)
    if not any(ends):
        assert len(began) == len(calls)


def test_a_call_waits_for_one_under_way_that_may_write_less_than_it_could():
    async def two() -> tuple[int, int]:
        budget = budget_of(max_tokens=100)
        await budget.begin(10, 80)
        second = asyncio.create_task(budget.begin(10, 20))
        await asyncio.sleep(0)
        assert not second.done()
        budget.settle(10, 80, (10, 5))
        await second
        budget.settle(10, 20, (10, 20))
        return budget.spent

    assert asyncio.run(two()) == (20, 25)


def test_a_limit_of_cost_says_what_was_spent():
    async def stop() -> None:
        budget = budget_of(max_cost=1.5, prompt_price=1.0, answer_price=2.0)
        await budget.begin(500_000, 250_000)
        budget.settle(500_000, 250_000, (500_000, 250_000))
        await budget.begin(500_000, 250_000)

    with pytest.raises(Stopped, match=r"500,000 tokens read and 250,000 written, which cost 1\)"):
        asyncio.run(stop())


@pytest.mark.parametrize("wrong", [{"max_tokens": -1}, {"max_cost": 1.0}, {"prompt_price": -2.0}])
def test_a_limit_that_means_nothing_is_refused(wrong):
    with pytest.raises(InputError):
        budget_of(**wrong)


def test_usage_adds_up_over_commands(tmp_path):
    assert read_usage(tmp_path) is None
    record_usage(tmp_path, Spent())
    assert read_usage(tmp_path) is None, "a command that asked nothing leaves no line"
    record_usage(tmp_path, Spent(calls=2, prompt_tokens=30, answer_tokens=4, seconds=0.5))
    record_usage(tmp_path, Spent(calls=1, failed=1, cost=0.25))
    total = read_usage(tmp_path)
    assert total == Spent(3, 30, 4, 1, 0.5, cost=0.25)
    with open(tmp_path / "usage.jsonl", "a") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match=r"usage.jsonl:3: not a line of usage"):
        read_usage(tmp_path)


def test_a_log_is_gone_when_its_command_ended_well(tmp_path):
    with CallLog(tmp_path) as log:
        log.add({"prompt": "a"}, Call({"text": "b"}))
        assert log.find({"prompt": "a"}) == Call({"text": "b"}) and log.find({}) is None
    assert not list(tmp_path.glob(LOGS))


def test_after_an_error_answers_stay_and_their_cost_is_not_counted_again(tmp_path):
    with pytest.raises(Stopped), CallLog(tmp_path) as log:
        log.add({"prompt": "a"}, Call({"text": "b"}, prompt_tokens=9))
        raise Stopped("enough")  # the command notes what it spent, whatever ends it
    with CallLog(tmp_path) as log:
        assert log.find({"prompt": "a"}).answer == {"text": "b"}
        assert sum(call.prompt_tokens + call.calls for call in log.left) == 0


KILLED = """
import sys, time
from pathlib import Path
from retrieval_kd.teachers.llm.server.call_log import Call, CallLog
with CallLog(Path(sys.argv[1])) as log:
    for prompt in "ab":
        log.add({"prompt": prompt}, Call({"text": prompt}, prompt_tokens=9))
    log._file.write('{"request": "torn')
    log._file.flush()
    print("ready", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_command_left_is_taken_over_with_its_cost_but_not_a_living_ones(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    with CallLog(tmp_path) as log:
        assert log.find({"prompt": "a"}) is None, "its command is alive"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with CallLog(tmp_path) as log:
        assert [log.find({"prompt": prompt}).answer["text"] for prompt in "ab"] == ["a", "b"]
        assert sum(call.prompt_tokens for call in log.left) == 18
        assert len(list(tmp_path.glob(LOGS))) == 1
    assert not list(tmp_path.glob(LOGS))


def test_a_log_holds_answers_and_no_prompts(tmp_path):
    with CallLog(tmp_path) as log:
        log.add({"prompt": "private"}, Call({"text": "b"}))
        [path] = tmp_path.glob(LOGS)
        [line] = path.read_text().splitlines()
    assert "private" not in line and json.loads(line)["answer"] == {"text": "b"}
