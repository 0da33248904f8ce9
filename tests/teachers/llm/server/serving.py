"""Real servers on a loopback port: `transformers serve`, and llama.cpp's own by xllamacpp."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

PATIENCE = 300.0  # seconds; a busy machine takes a minute to import torch
LLAMA = """
import sys, time
import xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.hostnames, parameters.port = ["127.0.0.1"], int(sys.argv[2])
parameters.n_ctx, parameters.n_parallel, parameters.kv_unified = 2048, 2, True
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
parameters.flash_attn_type, parameters.warmup = 0, False
server = xllamacpp.Server(parameters)
sys.stdin.read()  # until the tests are over, or gone
"""


def missing(*packages: str) -> str:
    """Why tests cannot run, if a package is not installed."""
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(lacking)}: pip install 'retrieval_kd[dev]'" if lacking else ""


@contextlib.contextmanager
def transformers_serve(model: Path, log: Path) -> Iterator[str]:
    """`transformers serve MODEL`: chat and completions, no log-probabilities."""
    program = Path(sys.executable).with_name("transformers")
    port = free_port()
    command = [str(program), "serve", str(model), "--host", "127.0.0.1", "--port", str(port),
               "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    with _running(command, port, log) as url:
        yield url


@contextlib.contextmanager
def llama_server(file: Path, log: Path) -> Iterator[str]:
    """llama.cpp's server: chat and completions with log-probabilities, none of the prompt's."""
    port = free_port()
    with _running([sys.executable, "-c", LLAMA, str(file), str(port)], port, log) as url:
        yield url


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=environment
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, f"the server did not start:\n{log.read_text()[-2000:]}"
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if urllib.request.urlopen(health, timeout=10).status == 200:
                return
        time.sleep(0.2)
    raise TimeoutError(f"no server after {PATIENCE} s:\n{log.read_text()[-2000:]}")


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
