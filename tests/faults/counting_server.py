"""A server with OpenAI's API in a process of its own: counts questions, kills its client at one.

Its answers depend on nothing but the question, so that a resumed command ends in the same result.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import socketserver
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from retrieval_kd.files import digest_text

Json = dict[str, Any]
SECONDS = 0.003  # that an answer takes
LABELS = ("yes", "no", "A", "B")  # of teachers that read probabilities


class Call(NamedTuple):
    """A question as it came in."""

    attempt: int  # which process asked: they are numbered in the order they came
    connection: int
    question: str  # digest


class Repeats(NamedTuple):
    """Calls that were made again: after their answer had come, or without it."""

    answered: int
    in_flight: int


def repeats(calls: Sequence[Call]) -> Repeats:
    """Count the calls that a later one repeats.

    A client sends its next question over a connection when it has read the last answer. So only
    the last call of each connection can have been in flight when the client was killed.

    Example:
        >>> repeats([Call(1, 80, "a"), Call(1, 80, "b"), Call(2, 81, "b"), Call(2, 81, "a")])
        Repeats(answered=1, in_flight=1)
    """
    last = {(call.attempt, call.connection): place for place, call in enumerate(calls)}
    latest = {call.question: place for place, call in enumerate(calls)}
    again = [(at, call) for at, call in enumerate(calls) if latest[call.question] != at]
    in_flight = sum(last[call.attempt, call.connection] == at for at, call in again)
    return Repeats(len(again) - in_flight, in_flight)


@dataclass(frozen=True)
class CountingServer:
    """What a parent and its children know of the server: its address."""

    url: str

    def calls(self) -> list[Call]:
        return [Call(*call) for call in self._send("calls", {})]

    def clear(self) -> None:
        """Forget all calls."""
        self._send("clear", {})

    def begin(self, number: int = 0, how: int = signal.SIGKILL, *, answered: bool = False) -> None:
        """Begin a new attempt, by this process; send it the signal at its question `number`.

        Args:
            answered: send it right after the answer, not before.
        """
        self._send("begin", {"pid": os.getpid(), "at": number, "how": how, "after": answered})

    def _send(self, path: str, body: Json) -> Any:
        address = f"{self.url.removesuffix('/v1')}/{path}"
        with urllib.request.urlopen(address, json.dumps(body).encode(), timeout=60) as answer:
            return json.load(answer)


@contextmanager
def counting_server() -> Iterator[CountingServer]:
    """Run the server in a forked process."""
    server = _Server(("127.0.0.1", 0), _Handler)
    child = os.fork()
    if child == 0:
        server.serve_forever()
    port = server.server_port
    server.socket.close()
    try:
        yield CountingServer(f"http://127.0.0.1:{port}/v1")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lock = threading.Lock()
        self.calls: list[Call] = []
        self.attempt = 0
        self.asked: dict[int, int] = defaultdict(int)  # attempt → questions
        self.plan: Json = {"at": 0}

    def control(self, path: str, body: Json) -> Any:
        with self.lock:
            if path == "/clear":
                self.calls = []
            elif path == "/begin":
                self.attempt, self.plan = self.attempt + 1, body
            return self.calls

    def note(self, connection: int, question: str) -> bool:
        """Note a question; whether the plan is to kill the client at this one."""
        with self.lock:
            self.calls.append(Call(self.attempt, connection, question))
            self.asked[self.attempt] += 1
            return self.asked[self.attempt] == self.plan["at"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            body = json.loads(content)
        except ValueError:  # the client was killed while it asked
            return
        if not self.path.startswith("/v1"):
            self._send(self.server.control(self.path, body))
            return
        question = digest_text(self.path, json.dumps(body, sort_keys=True))
        kill = self.server.note(self.client_address[1], question)
        plan = self.server.plan
        if kill and not plan["after"]:
            os.kill(plan["pid"], plan["how"])
        time.sleep(SECONDS)
        with suppress(ConnectionError):
            self._send(answer(body))
        if kill and plan["after"]:
            time.sleep(random.random() * SECONDS)
            os.kill(plan["pid"], plan["how"])

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError, socketserver.socket.timeout):  # the client was killed
            super().handle()


def answer(body: Json) -> Json:
    """Return the response to a chat: log-probabilities of labels, or an order of the passages."""
    text = "\n".join(message["content"] for message in body["messages"])
    dice = random.Random(text)
    choice: Json = {"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    if body.get("logprobs"):
        shares = sorted(((dice.random() / len(LABELS), label) for label in LABELS), reverse=True)
        logs = [(math.log(share), label) for share, label in shares]
        words = [{"token": label, "logprob": log} for log, label in logs]
        choice["message"]["content"] = words[0]["token"]
        choice["logprobs"] = {"content": [{**words[0], "top_logprobs": words}]}
    else:
        labels = re.findall(r"^\[(\d+)\]", text, re.MULTILINE)
        dice.shuffle(labels)
        choice["message"]["content"] = " > ".join(f"[{label}]" for label in labels)
    return {"choices": [choice], "usage": {"prompt_tokens": len(text), "completion_tokens": 1}}
