"""Talking to an OpenAI-compatible server: where it is, one request at a time, and how fast.

A request is sent once, by the openai client, and what went wrong says whether it may be sent again;
that is done in `server_repeats.py`. What requests say is in `server_model.py`.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.llm.server.responses import Json

if TYPE_CHECKING:
    from openai import APIConnectionError, AsyncOpenAI

KEY = "RETRIEVAL_KD_API_KEY"
LONGEST_WAIT = 120.0  # seconds; a server that wants a longer pause is not asked again


@dataclass(frozen=True)
class Server:
    """Where a server is and how much it may be asked at once.

    Args:
        url: its API, such as http://127.0.0.1:8000/v1. The key is read from the environment when
            it is needed: `RETRIEVAL_KD_API_KEY`; for api.openai.com, `OPENAI_API_KEY` will do.
        concurrency: calls under way at any moment.
        timeout: seconds until a call counts as lost.
        retries: how often a failed call is repeated, whatever goes wrong.
        per_minute: requests sent in a minute, repeated ones too; None leaves it to the server to
            say "not so fast".
    """

    url: str
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 6
    per_minute: float | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
            secret = bool(parts.username or parts.password or parts.query)
        except ValueError:
            good = secret = False
        if secret:  # not shown: it may be a key
            raise InputError(
                "the server's address has a name, a password or a query in it",
                remedy=f"give the bare address, and the key in the environment as {KEY}",
            )
        if not good:
            raise InputError(
                f"not a server's address: {self.url!r}", remedy="write http://HOST:PORT/v1"
            )
        least = {"concurrency": 1, "retries": 0, "timeout": 0.001, "per_minute": 0.001}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and not smallest <= value < float("inf"):
                raise InputError(f"{name} is {value}", remedy=f"give at least {smallest}")

    @property
    def key(self) -> str:
        """The secret, or a word that no server takes for one."""
        named = [KEY, "OPENAI_API_KEY"] if self.host == "api.openai.com" else [KEY]
        return next((os.environ[name] for name in named if os.environ.get(name)), "none")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


class Failed(Exception):
    """A request, or at last a call, that had no whole answer; the reason in a few words.

    Attributes:
        answered: an answer had begun to come, so it has to be paid for.
        again: whether it may be sent again.
        wait: how long the server wants us to wait before that (seconds), if it says so.
    """

    def __init__(
        self, why: str, *, answered: bool = False, again: bool = True, wait: float | None = None
    ) -> None:
        super().__init__(why)
        self.answered, self.again, self.wait = answered, again, wait


class Refused(Exception):
    """A call that the server understood and will not answer; its words."""


class Client:
    """Sends requests, no faster than allowed, and gives back what the server says."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.requests = 0  # sent so far, repeated ones too
        self._next = 0.0  # when the next request may be sent, by the clock of `per_minute`
        self._client: AsyncOpenAI | None = None

    async def post(self, path: str, body: Json) -> Any:
        """What the server says to a request, which is sent once.

        Raises:
            Failed: nothing whole came.
            Refused: the server will not answer this request.
            InputError: it will not answer us at all.
        """
        client = self._opened()
        import openai

        try:
            return await client.post(path, body=body, cast_to=object)
        except openai.APITimeoutError as error:
            why = f"no answer within {self.server.timeout:g} s"
            raise Failed(why, answered=_had_begun(error)) from error
        except openai.APIConnectionError as error:
            why = f"no connection: {error.__cause__}"
            raise Failed(why, answered=_had_begun(error)) from error
        except openai.APIStatusError as error:
            code = error.status_code
            if code in (401, 403, 404):
                raise InputError(
                    f"the server answered {code} ({_REASONS[code]})",
                    remedy=f"check the model's name, the address and the key in {KEY}",
                ) from error
            if code in (408, 409, 429) or code >= 500:
                again, wait = repeating(error.response.headers)
                raise Failed(f"the server answered {code}", again=again, wait=wait) from error
            raise Refused(f"{code}: {_words(error.body)}") from error
        except ValueError as error:  # JSON that does not end, or is none
            raise Failed("its answers are garbled", answered=True) from error

    async def _pace(self) -> None:
        if self.server.per_minute is None:
            return
        now = time.monotonic()
        self._next = max(now, self._next) + 60 / self.server.per_minute
        await asyncio.sleep(self._next - now - 60 / self.server.per_minute)

    def _opened(self) -> AsyncOpenAI:
        """The client; made at the first call, in the event loop that it belongs to."""
        if self._client is None:
            try:
                import openai
            except ImportError as error:
                raise InputError(
                    "asking a server needs the package openai",
                    remedy="pip install 'retrieval_kd[llm]'",
                ) from error

            async def sending(request: object) -> None:
                await self._pace()
                self.requests += 1

            async def coming(response: Any) -> None:
                response.request.extensions[_BEGUN] = response.is_success

            hooks: dict[str, list[Callable[..., Any]]]
            hooks = {"request": [sending], "response": [coming]}
            self._client = openai.AsyncOpenAI(
                base_url=self.server.url,
                api_key=self.server.key,
                timeout=self.server.timeout,
                max_retries=0,
                http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks),
            )
        return self._client

    async def close(self) -> None:
        """Let go of connections; the next call opens new ones."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def repeating(headers: Mapping[str, str]) -> tuple[bool, float | None]:
    """Whether a request may be sent again, and after how many seconds, if the server says so.

    `Retry-After` (RFC 9110, section 10.2.3) is a number of seconds or a date; `retry-after-ms` and
    `x-should-retry` are OpenAI's own. Names are in small letters.

    Example:
        >>> repeating({}), repeating({"retry-after": "2.5"}), repeating({"retry-after": "9999"})
        ((True, None), (True, 2.5), (False, 9999.0))
        >>> repeating({"retry-after": "soon"}), repeating({"x-should-retry": "false"})
        ((True, None), (False, None))
    """
    told, exactly = headers.get("retry-after", ""), headers.get("retry-after-ms", "")
    wait = _number(exactly)
    wait = _number(told) if wait is None else wait / 1000
    date = email.utils.parsedate_tz(told)
    if wait is None and date is not None:
        wait = email.utils.mktime_tz(date) - time.time()
    if wait is not None and not wait > 0:  # a date that has passed, no number
        wait = None
    again = wait is None or wait <= LONGEST_WAIT
    return again and headers.get("x-should-retry") != "false", wait


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_BEGUN = "retrieval_kd.begun"  # noted with a request when an answer to it begins


def _had_begun(error: APIConnectionError) -> bool:
    return bool(error.request.extensions.get(_BEGUN))


_REASONS = {401: "the key is missing or wrong", 403: "not allowed", 404: "no such model or address"}


def _words(body: object) -> str:
    """What a server says of a request that it does not like, on one line."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return " ".join(str(body).split())[:300]
