"""One call of a server, repeated until it is answered: every attempt within limits, and paid for.

How a request is sent is in `server_client.py`, how many calls are under way in `server_calls.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from retrieval_kd.teachers.llm.server.budget import Limits
from retrieval_kd.teachers.llm.server.client import Failed
from retrieval_kd.teachers.llm.server.responses import Json, is_answer, tokens_of

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds


@dataclass
class Bill:
    """What a call has taken so far, all its attempts together.

    Args:
        sent: requests.
        spent: tokens read and written.
    """

    sent: int = 0
    spent: tuple[int, int] = (0, 0)


async def until_answered(
    send: Callable[[], Awaitable[Any]],
    retries: int,
    limits: Limits,
    expected: tuple[int, int],
    bill: Bill,
) -> Json:
    """The first whole response.

    Timeouts, broken connections, 408, 409, 429 and 5xx are repeated, and so are garbled and empty
    answers: `retries` times in all, after growing pauses or as long as the server's Retry-After
    says. Whatever answered, wholly or not, is paid for: by the server's own count where it came,
    else by `expected`. A repeat is begun only if it fits into what is left then.

    Args:
        send: one request.
        expected: tokens that it may read and write.
        bill: added to, also where there is no response in the end.

    Raises:
        Failed: no whole response came.
        Refused, InputError: as `send` raises them.
        Stopped: the next attempt does not fit into the limits.
    """
    for attempt in range(retries + 1):
        await limits.begin(*expected)
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
            limits.settle(*expected, spent)
            bill.spent = (bill.spent[0] + spent[0], bill.spent[1] + spent[1])
        if attempt == retries or not failed.again:
            break
        await asyncio.sleep(pause(attempt) if failed.wait is None else failed.wait)
    raise failed


def pause(attempt: int) -> float:
    """Seconds after attempt 0, 1, …: doubled each time; by chance a little less, so that calls
    that failed together do not come back together.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 16))
    return longest * random.uniform(0.75, 1.0)
