"""A client of an OpenAI-compatible server: sends one request once, no faster than allowed.

Errors say whether the request may be repeated; `calls.py` repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from retrieval_kd.errors import KEY, InputError, shown
from retrieval_kd.teachers.llm.server.bodies import Failed, limit_body, refuse_redirect
from retrieval_kd.teachers.llm.server.responses import Json
from retrieval_kd.teachers.llm.server.settings import ServerSettings

if TYPE_CHECKING:
    from openai import APIConnectionError, AsyncOpenAI

LONGEST_WAIT = 120.0  # seconds; a request is not repeated if the server wants a longer pause
LONGEST_REASON = 300  # characters of a server's error message that are shown


def api_key(url: str) -> str:
    """The key in the environment, or "none", which no server accepts as one.

    Raises:
        InputError: it has a character that no key has, and that no request can carry.
    """
    openai = urlsplit(url).hostname == "api.openai.com"
    names = [KEY, "OPENAI_API_KEY"] if openai else [KEY]
    for name in names:
        key = os.environ.get(name, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            problem = f"the key in {name} has characters that no key has"
            raise InputError(problem, remedy="set it to the bare key, without quotes or comments")
        if key:
            return key
    return "none"


class Refused(Exception):
    """A request that the server understood and will not answer; the message is the server's."""


class Client:
    """A connection to one server. It opens at the first request and after each `close`."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.requests = 0  # sent, repeats included
        self._next = 0.0  # earliest time of the next request (monotonic clock), by `per_minute`
        self._client: AsyncOpenAI | None = None

    async def post(self, path: str, body: Json) -> Any:
        """Send a request once and return the server's response.

        Raises:
            Failed: no complete response came.
            Refused: the server will not answer this request.
            InputError: the server will answer no request: wrong key, address or model.
        """
        client = self._opened()
        import openai

        try:
            return await client.post(path, body=body, cast_to=object)
        except openai.APITimeoutError as error:
            why = f"no answer within {self.settings.timeout:g} s"
            raise Failed(why, answered=_had_begun(error)) from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, Failed | InputError):  # raised while the answer came
                raise error.__cause__ from None
            why = shown(f"no connection: {error.__cause__}", LONGEST_REASON)
            raise Failed(why, answered=_had_begun(error)) from error
        except openai.APIStatusError as error:
            code = error.status_code
            if code in (401, 403, 404):
                raise InputError(
                    f"the server answered {code} to {path} ({_REASONS[code]})",
                    remedy=f"check the model's name, the address and the key in {KEY}",
                ) from error
            if code in (408, 409, 429) or code >= 500:
                again, wait = repeating(error.response.headers)
                words = f": {_words(error.body)}" if isinstance(error.body, dict) else ""
                why = f"the server answered {code}{_HINTS.get(code, words)}"
                raise Failed(why, again=again, wait=wait) from error
            raise Refused(f"{code}: {_words(error.body)}") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            why = "its answers are garbled: broken JSON"  # incomplete, invalid or too deep
            raise Failed(why, answered=True) from error
        except ValueError as error:  # such as a number of 5,000 digits
            why = shown(f"its answers are garbled: {error}", LONGEST_REASON)
            raise Failed(why, answered=True) from error

    async def _pace(self) -> None:
        if self.settings.per_minute is None:
            return
        now = time.monotonic()
        self._next = max(now, self._next) + 60 / self.settings.per_minute
        await asyncio.sleep(self._next - now - 60 / self.settings.per_minute)

    def _opened(self) -> AsyncOpenAI:
        """The openai client, created at the first call, in the event loop it belongs to."""
        if self._client is None:
            try:
                import openai
            except ImportError as error:
                raise InputError(
                    "a server needs the package openai",
                    remedy="pip install 'retrieval_kd[llm]'",
                ) from error

            async def sending(request: object) -> None:
                await self._pace()
                self.requests += 1

            async def coming(response: Any) -> None:
                response.request.extensions[_BEGUN] = response.is_success
                refuse_redirect(response)
                limit_body(response, self.settings.timeout)

            hooks: dict[str, list[Callable[..., Any]]]
            hooks = {"request": [sending], "response": [coming]}
            self._client = openai.AsyncOpenAI(
                base_url=self.settings.url,
                api_key=api_key(self.settings.url),
                timeout=self.settings.timeout,
                max_retries=0,
                default_headers={"Accept-Encoding": "gzip, deflate"},  # as `limit_body` unpacks
                http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks),
            )
        return self._client

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None


def repeating(headers: Mapping[str, str]) -> tuple[bool, float | None]:
    """Return whether a request may be repeated, and the pause in seconds the server wants, if any.

    `Retry-After` (RFC 9110, section 10.2.3) is a number of seconds or a date; `retry-after-ms` and
    `x-should-retry` are OpenAI's own. Header names are in lower case.

    Example:
        >>> repeating({}), repeating({"retry-after": "2.5"}), repeating({"retry-after": "9999"})
        ((True, None), (True, 2.5), (False, 9999.0))
        >>> repeating({"retry-after": "soon"}), repeating({"x-should-retry": "false"})
        ((True, None), (False, None))
    """
    seconds, milliseconds = headers.get("retry-after", ""), headers.get("retry-after-ms", "")
    wait = _number(milliseconds)
    wait = _number(seconds) if wait is None else wait / 1000
    with contextlib.suppress(ValueError, TypeError, OverflowError):  # neither number nor date
        if wait is None and seconds:
            wait = email.utils.parsedate_to_datetime(seconds).timestamp() - time.time()
    if wait is not None and not wait > 0:  # a date in the past, or not a number
        wait = None
    again = wait is None or wait <= LONGEST_WAIT
    return again and headers.get("x-should-retry") != "false", wait


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_BEGUN = "retrieval_kd.begun"  # set on a request when its response begins


def _had_begun(error: APIConnectionError) -> bool:
    return bool(error.request.extensions.get(_BEGUN))


_HINTS = {429: ": too many requests; --per-minute and --concurrency make fewer"}
_REASONS = {401: "the key is missing or wrong", 403: "not allowed", 404: "no such model or address"}


def _words(body: object) -> str:
    """The server's error message on one line."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return " ".join(shown(str(body), LONGEST_REASON).split())
