"""Talking to an OpenAI-compatible server: a few calls at once, repeated when they fail, paced.

The openai client does the repeating (timeouts, broken connections, 408, 409, 429 and 5xx; growing
pauses, or as long as the server's Retry-After says); answers that arrive garbled are asked for
again here. What calls say is in `server_model.py`.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.server_answers import Json, is_answer

if TYPE_CHECKING:
    from openai import AsyncOpenAI

KEY = "RETRIEVAL_KD_API_KEY"
LONGEST_PAUSE = 8.0


@dataclass(frozen=True)
class Server:
    """Where a server is and how much it may be asked at once.

    Args:
        url: its API, such as http://127.0.0.1:8000/v1. The key is read from the environment when
            it is needed: `RETRIEVAL_KD_API_KEY`; for api.openai.com, `OPENAI_API_KEY` will do.
        concurrency: calls under way at any moment.
        timeout: seconds until a call counts as lost.
        retries: how often a failed call is repeated.
        per_minute: calls begun in a minute; None leaves it to the server to say "not so fast".
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
    """A call that had no answer, however often it was repeated; the reason in a few words."""


class Refused(Exception):
    """A call that the server understood and will not answer; its words."""


class Client:
    """Sends requests and gives back whole responses."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.requests = 0  # sent so far, repeated ones too
        self._next = 0.0  # when the next call may begin, by the clock of `per_minute`
        self._client: AsyncOpenAI | None = None

    async def post(self, path: str, body: Json) -> Json:
        """The response to a request.

        Raises:
            Failed: no whole response came.
            Refused: the server will not answer this request.
            InputError: it will not answer us at all.
        """
        for attempt in range(self.server.retries + 1):
            await self._pace()
            response = await self._send(path, body)
            if is_answer(response):
                return response
            if attempt < self.server.retries:
                await asyncio.sleep(min(LONGEST_PAUSE, 0.5 * 2**attempt))
        raise Failed("its answers are garbled")

    async def _send(self, path: str, body: Json) -> Any:
        import openai

        try:
            return await self._opened().post(path, body=body, cast_to=object)
        except openai.APITimeoutError as error:
            raise Failed(f"no answer within {self.server.timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise Failed(f"no connection: {error.__cause__}") from error
        except openai.APIStatusError as error:
            code = error.status_code
            if code in (401, 403, 404):
                raise InputError(
                    f"the server answered {code} ({_REASONS[code]})",
                    remedy=f"check the model's name, the address and the key in {KEY}",
                ) from error
            if code in (408, 409, 429) or code >= 500:
                raise Failed(f"the server answered {code}") from error
            raise Refused(f"{code}: {_words(error.body)}") from error
        except ValueError:  # JSON that does not end, or is none
            return None

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

            async def count(request: object) -> None:
                self.requests += 1

            self._client = openai.AsyncOpenAI(
                base_url=self.server.url,
                api_key=self.server.key,
                timeout=self.server.timeout,
                max_retries=self.server.retries,
                http_client=openai.DefaultAsyncHttpxClient(event_hooks={"request": [count]}),
            )
        return self._client

    async def close(self) -> None:
        """Let go of connections; the next call opens new ones."""
        if self._client is not None:
            await self._client.close()
            self._client = None


_REASONS = {401: "the key is missing or wrong", 403: "not allowed", 404: "no such model or address"}


def _words(body: object) -> str:
    """What a server says of a request that it does not like, on one line."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return " ".join(str(body).split())[:300]
