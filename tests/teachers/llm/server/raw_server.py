"""A server that says whatever a test wants it to say: any status, headers and bytes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Reply:
    """What comes back; a dict becomes JSON."""

    content: bytes | Json
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        content = self.content
        return content if isinstance(content, bytes) else json.dumps(content).encode()


def chat(content: object, top: list[tuple[object, object]] | None = None, **more: object) -> Json:
    """The response with this text, and with these likeliest first words."""
    choice: Json = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    if top is not None:
        words = [{"token": word, "logprob": log} for word, log in top]
        choice["logprobs"] = {"content": [{**words[0], "top_logprobs": words}]}
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    return {"choices": [{**choice, **more}], "usage": usage}


@contextlib.contextmanager
def raw_server(
    reply: Callable[[int, Json, str], Reply | Json], *, together: bool = False
) -> Iterator[str]:
    """The address of a server; `reply` is given the request's number, body and key header.

    With `together`, requests that come at the same time are answered at the same time.
    """
    lock: Any = contextlib.nullcontext() if together else threading.Lock()
    count = iter(range(1, 10**9))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                answer = reply(next(count), body, self.headers.get("Authorization", ""))
            answer = answer if isinstance(answer, Reply) else Reply(answer)
            self.send_response(answer.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.data))}
            for name, value in (headers | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client had enough
                self.wfile.write(answer.data)

        do_GET = do_POST

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
