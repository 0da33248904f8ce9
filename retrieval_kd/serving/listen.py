"""The address that a server listens on. It is taken before anything slow is imported."""

from __future__ import annotations

import socket

from retrieval_kd.errors import InputError
from retrieval_kd.serving.settings import ServeSettings


def bind(settings: ServeSettings) -> socket.socket:
    """Take the address, before anything is loaded.

    Raises:
        InputError: it is in use, not this machine's, or not allowed.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
        bound.listen()  # until now another process can bind it, too
    except OSError as error:
        bound.close()
        raise InputError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
            remedy="give another --port (0: any that is free), or another --host",
        ) from error
    return bound


def address(bound: socket.socket) -> str:
    """Return what to open in a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
