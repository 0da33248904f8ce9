"""Completions with the prompt's log-probabilities, in the form that vLLM documents them.

The servers at hand (`serving.py`) do not give these, and vLLM cannot run on the machines that test
this; so a small one of our own serves a real model. It shows that what is sent can be answered and
that the answer is read right, not that vLLM answers so.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from retrieval_kd.teachers.llm.decoder import LocalModel


def echo_server(model: LocalModel) -> contextlib.AbstractContextManager[str]:
    """Its address."""
    return serving(lambda body: answer(model, body))


@contextlib.contextmanager
def serving(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[str]:
    """The address of a server that answers requests, one after another, by a function."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                data = json.dumps(answer(body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@torch.inference_mode()
def answer(model: LocalModel, body: dict[str, Any]) -> dict[str, Any]:
    """One token more than the prompt, and how likely each was."""
    assert body["echo"] and body["logprobs"] == 1 and body["max_tokens"] == 1
    prompt, tokenizer = body["prompt"], model.tokenizer
    ids = tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
    logs = model.model(torch.tensor([ids])).logits[0].log_softmax(-1)  # (tokens, V)
    ids = [*ids, int(logs[-1].argmax())]
    told = [None, *(float(logs[at, token]) for at, token in enumerate(ids[1:]))]
    words = [tokenizer.decode([token]) for token in ids]
    offsets = [sum(map(len, words[:at])) for at in range(len(words))]
    lists = {"tokens": words, "token_logprobs": told, "text_offset": offsets}
    choice = {"index": 0, "text": "".join(words), "logprobs": lists, "finish_reason": "length"}
    usage = {"prompt_tokens": len(ids) - 1, "completion_tokens": 1, "total_tokens": len(ids)}
    return {"object": "text_completion", "choices": [choice], "usage": usage}
