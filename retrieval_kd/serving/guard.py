"""What holds of every request: how long it may take to come, headers, a line in the metrics."""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval_kd.errors import log
from retrieval_kd.serving.metrics import Metrics

SLOWEST = 20.0  # seconds until the next part of a request has come
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """Wraps an application.

    Args:
        routes: the paths that metrics tell apart; all others are one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: set[str]) -> None:
        self.app, self.metrics, self.routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def patient() -> Message:
            return await asyncio.wait_for(receive(), SLOWEST)

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *RAW]}
            await send(message)

        try:
            await self.app(scope, patient, guarded)
        except asyncio.CancelledError:
            log.warning("a request was cut off, as the server stops")
        except Exception:  # it was answered with 500
            log.exception("a request failed")
        route = scope["path"] if scope["path"] in self.routes else "other"
        self.metrics.request(route, status, time.perf_counter() - start)
