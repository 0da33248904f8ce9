"""What may come back from a server: from its own address only, and no more than fits in memory."""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from retrieval_kd.errors import InputError

MOST_REDIRECTS = 5  # of one request; more are a circle
_REDIRECTS = "retrieval_kd.redirects"  # of a request: how often it was sent on
LARGEST = 16 * 2**20  # bytes of a response, unpacked; the longest prompts' probabilities take less

REMEDY = "check the server's address; most end in /v1"


class Failed(Exception):
    """A request, or a call with all its repeats, without a complete response.

    Attributes:
        answered: a response had begun, so it has to be paid for.
        again: whether the request may be repeated.
        wait: the pause in seconds that the server wants before a repeat, if it names one.
    """

    def __init__(
        self, why: str, *, answered: bool = False, again: bool = True, wait: float | None = None
    ) -> None:
        super().__init__(why)
        self.answered, self.again, self.wait = answered, again, wait


def refuse_redirect(response: Any) -> None:
    """Refuse to follow a server that sends its clients, with their prompts, somewhere else.

    Neither to what is no address, nor in a circle.
    """
    if not response.has_redirect_location:
        return
    here, location = str(response.url), response.headers["location"]
    try:
        there = urljoin(here, location)
        elsewhere = urlsplit(there)[:2] != urlsplit(here)[:2]
        response.url.join(location)
    except Exception as error:  # urllib's ValueError, or the HTTP library's own
        raise InputError(
            f"the server sends its clients to what is no address: {location}", remedy=REMEDY
        ) from error
    if elsewhere:
        raise InputError(
            f"the server sends its clients to another address: {there}",
            remedy="give that address, if the prompts may go there",
        )
    sent_on = response.request.extensions.get(_REDIRECTS, 0) + 1
    response.request.extensions[_REDIRECTS] = sent_on  # its successor has them too
    if sent_on > MOST_REDIRECTS:
        raise InputError(f"the server sends its clients in a circle: {there}", remedy=REMEDY)


def limit_body(response: Any, seconds: float) -> None:
    """Have a response read within its limits of size and time, and unpacked here."""
    packing = response.headers.pop("content-encoding", "identity").strip().lower()
    [base] = [kind for kind in type(response.stream).__mro__ if kind.__name__ == "AsyncByteStream"]
    limited = type("LimitedBody", (LimitedBody, base), {})  # httpx's or httpx2's, as openai has it
    response.stream = limited(response.stream, packing, time.monotonic() + seconds)


class LimitedBody:
    """The bytes of a response, unpacked: no more than `LARGEST`, and none after the deadline.

    Unpacking stops at the limit, so that a small response cannot become a large one.
    """

    def __init__(self, stream: Any, packing: str, deadline: float) -> None:
        self._stream, self._packing, self._deadline = stream, packing, deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._packing not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise Failed("its answers are packed as was not asked for", answered=True, again=False)
        packed = self._packing not in ("identity", "")
        unpacker, size = zlib.decompressobj(zlib.MAX_WBITS | 32), 0  # reads the kind from the data
        async for part in self._stream:
            if time.monotonic() > self._deadline:
                raise Failed("its answer does not come to an end", answered=True)
            try:
                part = unpacker.decompress(part, LARGEST + 1) if packed else part
            except zlib.error as error:
                raise Failed("its answers are garbled", answered=True) from error
            size += len(part)
            if size > LARGEST:
                why = f"its answer is larger than {LARGEST >> 20} MiB"
                raise Failed(why, answered=True, again=False)
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
