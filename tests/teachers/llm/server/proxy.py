"""A small proxy in front of a real server: counts calls, and gets in the way where it is told to.

It answers nothing itself: what it lets through is the server's, what it does not is an error.
"""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

from retrieval_kd.files import digest_text

Fault = Callable[[int, str], str | None]  # number of the call, which question → what goes wrong
FAULTS = ("500", "429", "garbled", "empty", "cut off", "dropped")


def never(number: int, question: str) -> None:
    """Nothing goes wrong."""


class Proxy:
    """A context manager.

    Attributes:
        calls: question (the digest of a request) → how often it was asked.
        answered: question → how often its whole answer was handed over.
        faults: what went wrong how often.
        seen: headers and bodies, for what must not be in them.
    """

    def __init__(self, target: str, fault: Fault = never) -> None:
        self.target, self.fault = urlsplit(target), fault
        self.calls: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.seen: list[tuple[dict[str, str], str]] = []
        self.most_at_once = self._at_once = 0
        self.hold_after: int | None = None  # calls after so many wait for the end
        self.answered_enough = threading.Event()  # set when as many were answered
        self._let_through = 0
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{self.target.path}"

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def _begin(self, question: str, headers: dict[str, str], body: str) -> str | None:
        with self._lock:
            self.calls[question] += 1
            self.seen.append((headers, body))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            fault = self.fault(sum(self.calls.values()), question)
            if fault:
                self.faults[fault] += 1
            held = self._let_through == self.hold_after
            self._let_through += not held and fault is None
        if held:
            self.over.wait()
        return fault

    def _end(self, question: str, whole: bool) -> None:
        with self._lock:
            self._at_once -= 1
            if whole:
                self.answered[question] += 1
            if self.answered.total() == self.hold_after:
                self.answered_enough.set()

    def ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        """What the server says."""
        host, port = self.target.hostname, self.target.port
        assert host is not None
        connection = http.client.HTTPConnection(host, port, timeout=120)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        status, data = response.status, response.read()
        connection.close()
        return status, data

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                question = digest_text(self.path, body.decode())
                headers = {name.lower(): value for name, value in self.headers.items()}
                fault = proxy._begin(question, headers, body.decode())
                whole = False
                try:
                    whole = self._answer(fault, body)
                finally:
                    proxy._end(question, whole)

            def _answer(self, fault: str | None, body: bytes) -> bool:
                if proxy.over.is_set():
                    self.close_connection = True
                elif fault in ("429", "busy"):  # the second for a thousandth as long
                    wait = "1" if fault == "429" else "0.001"
                    self._send(429, b'{"error": {"message": "slow down"}}', {"Retry-After": wait})
                elif fault is not None and fault.isdigit():
                    self._send(int(fault), b'{"error": {"message": "broken"}}')
                elif fault == "empty":
                    self._send(200, b'{"choices": []}')
                elif fault == "late":
                    proxy.over.wait(30)
                    self.close_connection = True
                elif fault == "dropped":
                    self.close_connection = True
                else:
                    status, data = proxy.ask(self.path, body)
                    if fault == "garbled":
                        self._send(200, data[: len(data) // 2])
                    elif fault == "cut off":
                        self._send(200, data[: len(data) // 2], length=len(data))
                        self.close_connection = True
                    else:
                        self._send(status, data)
                        return status == 200
                return False

            def _send(
                self,
                status: int,
                data: bytes,
                more: dict[str, str] | None = None,
                length: int | None = None,
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(length or len(data)))
                for name, value in (more or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        return Handler
