"""Many calls of one server: several at once, within limits, each kept until it is stored.

How one is repeated is in `server_repeats.py`, how it is sent in `server_client.py`; what is asked
and what is made of it in `server_model.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from retrieval_kd.errors import InputError
from retrieval_kd.store.usage import Usage
from retrieval_kd.teachers.llm.server.budget import Limits, Stopped
from retrieval_kd.teachers.llm.server.call_log import Call, CallLog
from retrieval_kd.teachers.llm.server.client import Client, Failed, Refused, Server
from retrieval_kd.teachers.llm.server.responses import Json, is_refusal, tokens_of
from retrieval_kd.teachers.llm.server.retries import Bill, until_answered

log = logging.getLogger("retrieval_kd")

Result = TypeVar("Result")
Check = Callable[[Json], None]  # raises if an answer shows that the server cannot do what is asked

FEW = 5
MOST = ("max_completion_tokens", "max_tokens")  # how requests say what may be written


class Calls:
    """Asks, in the order of the requests, and gives answers in that order.

    A call that fails is missing: None. After a limit, or when the server is gone, the rest of a
    batch is missing, too, so that the caller can store what came; the next batch raises.

    Attributes:
        usage: what was asked so far.
        stopped: why nothing more is asked.
    """

    def __init__(self, server: Server, limits: Limits | None = None) -> None:
        self.server, self.limits = server, limits or Limits()
        self.usage = Usage()
        self.stopped: Stopped | None = None
        self._log: CallLog | None = None
        self._client = Client(server)
        self._runner = asyncio.Runner()
        self._answered = False
        self._begun = 0  # calls
        self._refused: set[int] = set()  # their numbers
        self._failures = 0  # one after another
        self._able: set[Check] = set()  # what answers have shown that the server can do
        self._unable: list[InputError] = []  # answers that lacked it, while none had it
        self._per_character: float | None = None  # tokens, by this server's count

    def keep_in(self, log: CallLog) -> None:
        """Keep answers there, and take what a killed command left: its cost, too, is counted."""
        self._log = log
        for call in log.left:
            self.usage.calls += call.calls
            self.usage.seconds += call.seconds
            self._count(call.prompt_tokens, call.answer_tokens)

    def ask(self, path: str, bodies: Sequence[Json], check: Check | None = None) -> list[Any]:
        """The first choice of each response, or None.

        Raises:
            InputError: the server will not answer us, or cannot do what is asked.
            Stopped: a limit was reached before.
        """
        if self.stopped is not None:
            raise self.stopped
        started, client = time.monotonic(), self._client
        before = client.requests
        found: list[Json | None] = [None] * len(bodies)
        todo = iter(enumerate(bodies))

        async def work() -> None:
            for number, body in todo:
                found[number] = await self._one(path, body, check)

        async def all_of_them() -> None:
            workers = [asyncio.create_task(work()) for _ in range(self.server.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)  # their calls settle first

        self._unable = []
        try:
            self._run(all_of_them())
            if self._unable and check not in self._able:
                raise self._unable[-1]
        finally:
            self.usage.calls += client.requests - before
            self.usage.seconds += time.monotonic() - started
            self.limits.forget_calls()
        return found

    def close(self) -> None:
        """Let go of connections; the next call opens new ones."""
        self._run(self._client.close())
        self._runner.close()
        self._runner = asyncio.Runner()

    async def _one(self, path: str, body: Json, check: Check | None) -> Json | None:
        request = {"path": path, **body}
        known = self._log.find(request) if self._log else None
        if known is not None:
            return known.answer
        if self.stopped is not None:
            return None
        expected = (self._tokens(body), sum(body.get(name, 0) for name in MOST))
        number, bill, started = self._begun, Bill(), time.monotonic()
        self._begun += 1
        client, retries = self._client, self.server.retries
        try:
            response = await until_answered(
                lambda: client.post(path, body), retries, self.limits, expected, bill
            )
        except Stopped as stop:
            self.stopped = stop
            self.usage.failed += bill.sent > 0
            return None
        except Failed as error:
            self._fail(error)
            return None
        except Refused as error:
            self._refuse(error, number)
            return None
        finally:
            self._count(*bill.spent)
        self._learn(body, tokens_of(response))
        seconds = (time.monotonic() - started) / self.server.concurrency
        call = Call(response["choices"][0], bill.sent, *bill.spent, seconds)
        if check is not None and not is_refusal(call.answer) and not self._has(check, call.answer):
            return None
        if self._log is not None:
            self._log.add(request, call)
        return call.answer

    def _has(self, check: Check, answer: Json) -> bool:
        """Whether an answer has what was asked for.

        One without is missing: llama.cpp's server leaves probabilities out where the word is half
        a character. Only if the first few have nothing, the server cannot do it.
        """
        try:
            check(answer)
        except InputError as error:
            self.usage.failed += 1
            self._unable.append(error)
            if len(self._unable) >= FEW and check not in self._able:
                raise
            return False
        self._able.add(check)
        return True

    def _count(self, prompt_tokens: int, answer_tokens: int) -> None:
        self.usage.prompt_tokens += prompt_tokens
        self.usage.answer_tokens += answer_tokens

    def _learn(self, body: Json, counted: tuple[int, int] | None) -> None:
        """The server answers, and makes so many tokens of a character, at most."""
        self._answered, self._failures = True, 0
        if counted is not None:
            share = counted[0] / max(1, _characters(body))
            self._per_character = max(self._per_character or 0.0, share)

    def _refuse(self, error: Refused, number: int) -> None:
        """Note a request that is missing; stop where it is not its own fault.

        A prompt may be too long for the model. But a server that refuses the first few to begin,
        whatever they are, has no such model, or cannot be asked so. (Not the first few to end:
        refusals come faster than answers.)
        """
        self.usage.failed += 1
        if not self._refused:
            log.warning("the server refuses a request, which is missing now: %s", error)
        self._refused.add(number)
        if not self._answered and self._refused >= set(range(FEW)):
            raise InputError(
                f"the server refuses the first {FEW} requests: {error}",
                remedy="check the model's name; a model without a chat template needs "
                "--api completions, one that reads less needs shorter passages (?passage_tokens=)",
            )

    def _fail(self, error: Failed) -> None:
        self.usage.failed += 1
        self._failures += 1
        if self._failures >= max(FEW, self.server.concurrency) and self.stopped is None:
            more = " any more" if self._answered else ""
            self.stopped = Stopped(
                f"the server does not answer{more} ({self._failures} calls in a row: {error})",
                remedy="see what is wrong with it; the same command goes on from here",
            )

    def _tokens(self, body: Json) -> int:
        """Of a request, guessed high: as many of a character as this server has ever counted."""
        prompt = body.get("prompt")
        if isinstance(prompt, list):
            return len(prompt)
        share = 1.0 if self._per_character is None else self._per_character
        return int(_characters(body) * share) + 1

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run until done, also where an event loop is running already (notebooks)."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            with ThreadPoolExecutor(1) as other:
                return other.submit(self._runner.run, work).result()
        try:
            return self._runner.run(work)
        except (KeyboardInterrupt, SystemExit):  # calls under way are given up, not waited for
            self._runner.close()
            self._runner, self._client = asyncio.Runner(), Client(self.server)
            raise


def _characters(body: Json) -> int:
    said = [turn["content"] for turn in body.get("messages", ())]
    return len(body.get("prompt") or "") + sum(map(len, said))
