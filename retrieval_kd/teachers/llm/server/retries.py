"""One call of a server: a request repeated until it is answered, each attempt within the budget."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from retrieval_kd.teachers.llm.server.budget import Budget
from retrieval_kd.teachers.llm.server.client import Failed
from retrieval_kd.teachers.llm.server.responses import Json, is_answer, tokens_of

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds


@dataclass
class Bill:
    """What all attempts of a call have taken so far."""

    sent: int = 0  # requests
    spent: tuple[int, int] = (0, 0)  # tokens read and written


async def until_answered(
    send: Callable[[], Awaitable[Any]],
    retries: int,
    budget: Budget,
    expected: tuple[int, int],
    bill: Bill,
) -> Json:
    """Send a request until a complete response comes, and return that response.

    Timeouts, broken connections, 408, 409, 429, 5xx, and garbled or empty answers are repeated: at
    most `retries` times in all, after growing pauses or the server's Retry-After. Every response
    that has begun is paid for: by the server's own count if it came, else by `expected`. A repeat
    starts only if it fits into the budget.

    Args:
        send: sends the request once.
        expected: tokens that one attempt may read and write.
        bill: filled in with every attempt, also if none succeeds.

    Raises:
        Failed: no complete response came.
        Refused, InputError: raised by `send`.
        Stopped: the next attempt does not fit into the budget.
    """
    for attempt in range(retries + 1):
        await budget.begin(*expected)
        spent = (0, 0)
        try:
            bill.sent += 1
            response = await send()
            spent = tokens_of(response) or expected
            if is_answer(response):
                return response
            failed = Failed("its answers are garbled", answered=True)
        except Failed as error:
            spent, failed = expected if error.answered else (0, 0), error
        finally:
            budget.settle(*expected, spent)
            bill.spent = (bill.spent[0] + spent[0], bill.spent[1] + spent[1])
        if attempt == retries or not failed.again:
            break
        await asyncio.sleep(pause(attempt) if failed.wait is None else failed.wait)
    raise failed


def pause(attempt: int) -> float:
    """Seconds to wait after attempt 0, 1, …: doubled each time, minus up to a quarter at random,
    so that calls that failed together are not repeated together.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 16))
    return longest * random.uniform(0.75, 1.0)
