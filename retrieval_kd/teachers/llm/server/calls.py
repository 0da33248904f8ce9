"""Many calls of one server: several at a time, within the budget, each logged until it is stored.

`client.py` sends a request once; `model.py` writes requests and reads answers.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from retrieval_kd.errors import InputError
from retrieval_kd.store.usage import Usage
from retrieval_kd.teachers.llm.server.budget import Budget, Stopped
from retrieval_kd.teachers.llm.server.call_log import Call, CallLog
from retrieval_kd.teachers.llm.server.checks import CHOICE, Form, tokens_of
from retrieval_kd.teachers.llm.server.client import Client, Failed, Refused
from retrieval_kd.teachers.llm.server.responses import Json, is_refusal, why_refused
from retrieval_kd.teachers.llm.server.settings import ServerSettings

log = logging.getLogger("retrieval_kd")

Result = TypeVar("Result")
Check = Callable[[Json], None]  # raises if the answer lacks what was requested
Keep = Callable[[Json, Json], None]  # request, answer → what the log need not hold any more

FEW = 5  # calls without success at the start, or in a row, after which we give up
# what may be wrong with all requests to an endpoint
REFUSED = {
    "/chat/completions": "; a model without a chat template needs --api completions",
    "/embeddings": " and --batch; a model without ?dimensions=, ?input_type= or ?task= needs none",
    "/rerank": " and --batch; TEI's own API needs ?form=tei",
}
MOST = ("max_completion_tokens", "max_tokens")  # names of the limit on written tokens


class Calls:
    """Calls of one server, made and answered in the order of the requests.

    The answer of a failed call is None. After a limit is reached or the server is gone, the rest
    of a batch is None too, so that the caller can store the others; the next batch raises.

    Attributes:
        usage: calls made, tokens read and written.
        stopped: why no more calls are made.
        refused: the requests of the latest batch that the server will not answer.
        reasons: of calls without an answer, how often each.
    """

    def __init__(self, settings: ServerSettings, budget: Budget | None = None) -> None:
        self.settings, self.budget = settings, budget or Budget(settings)
        self.usage = Usage()
        self.stopped: Stopped | None = None
        self.refused: list[Json] = []
        self.reasons: Counter[str] = Counter()
        self._log: CallLog | None = None
        self._client = Client(settings)
        self._runner = asyncio.Runner()
        self._answered = False
        self._begun = 0  # number of calls
        self._refused: set[int] = set()  # numbers of refused calls
        self._failures = 0  # in a row
        self._able: set[Check] = set()  # checks that an answer has passed
        self._unable: list[InputError] = []  # failed checks of the current batch
        self._per_character: float | None = None  # tokens, the most this server has counted

    def keep_in(self, log: CallLog) -> None:
        """Log answers there, and count what a killed command spent on the answers it left."""
        self._log = log
        for call in log.left:
            self.usage.calls += call.calls
            self.usage.seconds += call.seconds
            self._count(call.prompt_tokens, call.answer_tokens)

    def query(
        self,
        path: str,
        bodies: Sequence[Json],
        check: Check | None = None,
        *,
        form: Form = CHOICE,
        keep: Keep | None = None,
    ) -> list[Any]:
        """Query the server and return the answer in each response, or None.

        Args:
            check: raises where an answer of the right form lacks what was requested.
            form: of the answers; by default the first choice of a chat or a completion.
            keep: stores an answer as soon as it has come; only its cost is logged then.

        Raises:
            InputError: the server answers no request, or cannot do what is requested.
            Stopped: a limit was reached in an earlier batch.
        """
        if self.stopped is not None:
            raise self.stopped
        started, client = time.monotonic(), self._client
        before = client.requests
        answers: list[Json | None] = [None] * len(bodies)
        todo = iter(enumerate(bodies))

        async def work() -> None:
            for number, body in todo:
                answer = answers[number] = await self._one(path, body, check, form, keep)
                if answer is not None and is_refusal(answer):
                    self.reasons[why_refused(answer)] += 1

        async def all_calls() -> None:
            workers = [asyncio.create_task(work()) for _ in range(self.settings.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                # wait until their calls are settled
                await asyncio.gather(*workers, return_exceptions=True)

        self._unable, self.refused = [], []
        try:
            self._run(all_calls())
            if self._unable and check not in self._able:
                raise self._unable[-1]
        finally:
            self.usage.calls += client.requests - before
            self.usage.seconds += time.monotonic() - started
            self.budget.forget_calls()
        return answers

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        self._run(self._client.close())
        self._runner.close()
        self._runner = asyncio.Runner()

    async def _one(
        self, path: str, body: Json, check: Check | None, form: Form, keep: Keep | None
    ) -> Json | None:
        request = {"path": path, **body}
        logged = self._log.find(request, form) if self._log and keep is None else None
        if logged is not None:
            return logged.answer
        if self.stopped is not None:
            return None
        expected = (self._tokens(body), sum(body.get(name, 0) for name in MOST))
        number, bill, started = self._begun, Bill(), time.monotonic()
        self._begun += 1
        client, retries = self._client, self.settings.retries
        try:
            answer, counted = await until_answered(
                lambda: client.post(path, body),
                lambda response: form.read(response, body),
                retries,
                self.budget,
                expected,
                bill,
            )
        except Stopped as stop:
            self.stopped = stop
            self.usage.failed += bill.sent > 0
            return None
        except Failed as error:
            self._fail(error)
            return None
        except Refused as error:
            self.refused.append(body)
            self._refuse(error, number, path)
            return None
        finally:
            self._count(*bill.spent)
        self._note_answer(body, counted)
        seconds = (time.monotonic() - started) / self.settings.concurrency
        if check is not None and not is_refusal(answer) and not self._has(check, answer):
            return None
        if keep is not None:
            keep(body, answer)
        if self._log is not None:
            logged_answer = answer if keep is None else {}
            self._log.add(request, Call(logged_answer, bill.sent, *bill.spent, seconds))
        return answer

    def _has(self, check: Check, answer: Json) -> bool:
        """Whether an answer has what was requested.

        An answer without it counts as failed: llama.cpp's server leaves probabilities out where the
        word is half a character. Only if the first few answers all lack it, the server cannot do
        it.
        """
        try:
            check(answer)
        except InputError as error:
            self.usage.failed += 1
            self.reasons[error.problem] += 1
            self._unable.append(error)
            if len(self._unable) >= FEW and check not in self._able:
                raise
            return False
        self._able.add(check)
        return True

    def _count(self, prompt_tokens: int, answer_tokens: int) -> None:
        self.usage.prompt_tokens += prompt_tokens
        self.usage.answer_tokens += answer_tokens

    def _note_answer(self, body: Json, counted: tuple[int, int] | None) -> None:
        """Note that the server answers, and the most tokens per character it has counted."""
        self._answered, self._failures = True, 0
        if counted is not None:
            share = counted[0] / max(1, _characters(body))
            self._per_character = max(self._per_character or 0.0, share)

    def _refuse(self, error: Refused, number: int, path: str) -> None:
        """Note a refused request; raise if the cause is not the request itself.

        A single prompt may be too long for the model. But a server that refuses the first few calls
        by start time lacks the model or this API. (By start time: refusals come faster than
        answers, so the first few to end prove nothing.)
        """
        self.usage.failed += 1
        self.reasons[f"the server refused the request: {error}"] += 1
        if not self._refused:
            log.warning("the server refuses a request, which is missing now: %s", error)
        self._refused.add(number)
        if not self._answered and self._refused >= set(range(FEW)):
            raise InputError(
                f"the server refuses the first {FEW} requests: {error}",
                remedy=f"check the model's name{REFUSED.get(path, '')}; one that reads less needs "
                "shorter passages (?passage_tokens=)",
            )

    def _fail(self, error: Failed) -> None:
        self.usage.failed += 1
        self.reasons[str(error)] += 1
        self._failures += 1
        if self._failures >= max(FEW, self.settings.concurrency) and self.stopped is None:
            more = " any more" if self._answered else ""
            self.stopped = Stopped(
                f"the server does not answer{more} ({self._failures} calls in a row: {error})",
                remedy="see what is wrong with it; the same command resumes from here",
            )

    def _tokens(self, body: Json) -> int:
        """A high estimate of a request's tokens, from the server's highest count per character."""
        prompt = body.get("prompt")
        if isinstance(prompt, list):
            return len(prompt)
        share = 1.0 if self._per_character is None else self._per_character
        return int(_characters(body) * share) + 1

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run to the end, also inside a running event loop (notebooks)."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            with ThreadPoolExecutor(1) as other:
                return other.submit(self._runner.run, work).result()
        try:
            return self._runner.run(work)
        except (KeyboardInterrupt, SystemExit):  # abandon calls under way
            stopped, self._runner = self._runner, asyncio.Runner()
            self._client = Client(self.settings)
            stopped.get_loop().set_exception_handler(lambda loop, context: None)  # no tracebacks
            stopped.close()  # may raise what stopped it once more
            raise


def _characters(body: Json) -> int:
    """Of all texts in a request; a re-ranker reads the query with every document."""
    texts = [turn["content"] for turn in body.get("messages", ())]
    documents = body.get("documents") or body.get("texts") or ()
    texts += [*body.get("input", ()), *documents, body.get("prompt") or ""]
    return sum(map(len, texts)) + len(body.get("query", "")) * len(documents)


FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds


@dataclass
class Bill:
    """What all attempts of a call have taken."""

    sent: int = 0  # requests
    spent: tuple[int, int] = (0, 0)  # tokens read and written


async def until_answered(
    send: Callable[[], Awaitable[Any]],
    read: Callable[[Any], Json],
    retries: int,
    budget: Budget,
    expected: tuple[int, int],
    bill: Bill,
) -> tuple[Json, tuple[int, int] | None]:
    """Send a request until a complete answer comes; return it and the server's count of tokens.

    Timeouts, broken connections, 408, 409, 429, 5xx, and garbled or empty answers are repeated: at
    most `retries` times in all, after growing pauses or the server's Retry-After. Every response
    that has begun is paid for: by the server's own count if it came, else by `expected`. A repeat
    starts only if it fits into the budget.

    Args:
        send: sends the request once.
        read: the answer in a response; raises ValueError if it is none.
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
            counted = tokens_of(response)
            spent = counted or expected
            return read(response), counted
        except ValueError as error:
            failed = Failed(f"its answers are garbled: {error}", answered=True)
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
