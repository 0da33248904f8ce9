"""Runs the server: loads the models, says when it is ready, stops after what it has begun."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import uvicorn

from retrieval_kd.progress import say
from retrieval_kd.serving.api import make_app
from retrieval_kd.serving.listen import address
from retrieval_kd.serving.metrics import Metrics
from retrieval_kd.serving.service import Service
from retrieval_kd.serving.settings import ServeSettings

PATIENCE = 30  # seconds that a search in flight has when the server stops
IDLE = 512  # connections beside those of searches


def run_server(service: Service, settings: ServeSettings, bound: socket.socket) -> None:
    """Serve until a signal; probes are answered while the models are loaded.

    Raises:
        InputError: an index or a model cannot be loaded.
    """
    asyncio.run(_run(service, settings, bound))


class _Server(uvicorn.Server):
    """uvicorn's server, with the signals of this project."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(service: Service, settings: ServeSettings, bound: socket.socket) -> None:
    metrics = Metrics()
    config = uvicorn.Config(
        make_app(service, settings, metrics),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=settings.concurrency + IDLE,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[None] = loop.create_future()
    loader = threading.Thread(target=_load, args=(service, loop, loaded), daemon=True)
    forced: asyncio.Future[None] = loop.create_future()
    _stop_on_signals(server, forced)
    loader.start()
    serving = asyncio.create_task(server.serve([bound]))
    await asyncio.wait({serving, loaded, forced}, return_when=asyncio.FIRST_COMPLETED)
    if loaded.done() and loaded.exception() is not None:
        _stop(server, forced)
    elif loaded.done():
        say(f"serving {len(service.collection.documents):,} documents at {address(bound)}")
    await asyncio.wait({serving, forced}, return_when=asyncio.FIRST_COMPLETED)
    if not loaded.done():
        _leave(service, "stopped before the models were loaded")
    elif loaded.exception() is None and not serving.done():
        _leave(service, f"stopped at once; {metrics.answered:,} requests were answered")
    service.close()
    loaded.result()
    await serving
    say(f"stopped; {metrics.answered:,} requests were answered")


def _leave(service: Service, told: str) -> NoReturn:
    """End the process without waiting for its threads, which cannot be stopped."""
    say(told)
    service.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _load(service: Service, loop: asyncio.AbstractEventLoop, loaded: asyncio.Future[None]) -> None:
    try:
        service.load()
    except BaseException as error:
        told = error
        loop.call_soon_threadsafe(lambda: loaded.set_exception(told))
    else:
        loop.call_soon_threadsafe(lambda: loaded.set_result(None))


def _stop_on_signals(server: uvicorn.Server, forced: asyncio.Future[None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, _stop, server, forced)


def _stop(server: uvicorn.Server, forced: asyncio.Future[None]) -> None:
    """Finish what is in flight the first time; the second time, or when it takes too long, force.

    uvicorn's own `force_exit` and bound may still wait for open connections.
    """

    def force() -> None:
        if not forced.done():
            forced.set_result(None)

    if server.should_exit:
        force()
    else:
        server.should_exit = True
        asyncio.get_running_loop().call_later(PATIENCE, force)
