"""The budget of a server's calls: no limit is passed, whatever runs at once."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.errors import InputError
from retrieval_kd.schema import validate
from retrieval_kd.teachers.llm.server.budget import Budget, Stopped
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


def test_a_call_waits_for_a_running_one_that_may_write_less_than_reserved():
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


def test_the_error_at_a_cost_limit_names_tokens_and_cost():
    async def stop() -> None:
        budget = budget_of(max_cost=1.5, prompt_price=1.0, answer_price=2.0)
        await budget.begin(500_000, 250_000)
        budget.settle(500_000, 250_000, (500_000, 250_000))
        await budget.begin(500_000, 250_000)

    with pytest.raises(Stopped, match=r"500,000 tokens read and 250,000 written, which cost 1\)"):
        asyncio.run(stop())


@pytest.mark.parametrize("wrong", [{"max_tokens": -1}, {"max_cost": 1.0}, {"prompt_price": -2.0}])
def test_a_meaningless_limit_is_refused(wrong):
    with pytest.raises(InputError):
        budget_of(**wrong)
