"""The real server: starts on a free port, says where, and stops after what it has begun."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.indexing.index import Index
from retrieval_kd.serving.listen import address, bind
from retrieval_kd.serving.settings import ServeSettings
from tests.serving.conftest import WORDS

PATIENCE = 120  # seconds


def start(index: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start `rkd serve` and return it with its address, once it says that it is ready."""
    line = [sys.executable, "-m", "retrieval_kd", "serve", "--index", str(index), "--port", "0"]
    process = subprocess.Popen([*line, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for said in process.stdout:
        if said.startswith("serving "):
            found = re.search(r"http://\S+", said)
            assert found is not None
            return process, found[0]
    raise AssertionError(f"it ended with {process.wait()}")


def test_it_answers_and_stops_after_what_it_has_begun(indexes):
    process, at = start(indexes["dense"])
    try:
        assert httpx2.get(f"{at}ready").json() == {"ready": True}
        found = httpx2.post(f"{at}api/search", json={"query": WORDS, "systems": ["my-dense"]})
        hits = [(hit["id"], hit["score"]) for hit in found.json()["lists"][0]["hits"]]
        assert hits == Index.open(indexes["dense"]).search([WORDS])[0]
        answers = []
        body = b'{"query": "sparrow"}'
        slow = socket.create_connection(("127.0.0.1", httpx2.URL(at).port or 0))
        head = "POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        slow.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:5])
        time.sleep(0.5)  # the request has begun
        process.send_signal(signal.SIGTERM)
        reader = threading.Thread(target=lambda: answers.append(slow.makefile("rb").read()))
        reader.start()
        time.sleep(0.5)
        slow.sendall(body[5:])
        reader.join(PATIENCE)
        assert answers and answers[0].startswith(b"HTTP/1.1 200"), answers
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and said == "stopped; 3 requests were answered\n"
    finally:
        process.kill()


SLOW = """
import time, types
from retrieval_kd.serving.listen import bind
from retrieval_kd.serving.server import run_server
from retrieval_kd.serving.settings import ServeSettings

class Slow:
    ready, names, teacher_spec = True, ["slow"], None
    collection = types.SimpleNamespace(documents=[])
    def load(self): pass
    def search(self, *_, **__):
        print("searching", flush=True)
        time.sleep(3600)
    def close(self): print("closed")

settings = ServeSettings(port=0)
with bind(settings) as bound:
    run_server(Slow(), settings, bound)
"""


def test_a_second_signal_stops_it_while_a_search_runs():
    line, pipe = [sys.executable, "-c", SLOW], subprocess.PIPE
    process = subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        told = re.search(r":(\d+)/", process.stdout.readline())
        assert told is not None
        port = int(told[1])
        body = b'{"query": "sparrow"}'
        with socket.create_connection(("127.0.0.1", port)) as asking:
            head = "POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            asking.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            assert process.stdout.readline() == "searching\n"
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            said, log = process.communicate(timeout=20)  # less than it waits after one signal
        assert process.returncode == 0 and "Traceback" not in log
        assert said == "stopped at once; 0 requests were answered\nclosed\n"
    finally:
        process.kill()


def test_a_damaged_index_ends_it_with_one_line(indexes, tmp_path, command):
    import shutil

    shutil.copytree(indexes["dense"], tmp_path / "index")
    file = tmp_path / "index" / "index.faiss"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    code, said = command("serve", "--index", tmp_path / "index", "--port", "0")
    assert code == 2 and "index.faiss: digest differs" in said and "Traceback" not in said


def test_a_port_in_use_is_refused_before_anything_is_loaded(indexes, command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = command("serve", "--index", indexes["dense"], "--port", port)
    assert code == 2 and f"port {port}: Address already in use" in said
    assert said.count("\n") == 1


def test_a_port_that_was_just_taken_is_in_use():
    with bind(ServeSettings(port=0)) as first, pytest.raises(InputError, match="already in use"):
        bind(ServeSettings(port=first.getsockname()[1]))


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(InputError, match=r"cannot listen on 203\.0\.113\.1"):
        bind(ServeSettings(host="203.0.113.1"))


@pytest.mark.parametrize("host", ["", "x", "example.org", "127.0.0.1:80", "http://127.0.0.1", "٣"])
def test_a_host_is_an_address(host, command, indexes):
    code, said = command("serve", "--index", indexes["dense"], f"--host={host or ' '}")
    assert code == 2 and said.count("\n") == 1


def test_the_address_is_one_to_open():
    with bind(ServeSettings(host="localhost", port=0)) as bound:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address(bound))


def test_missing_packages_are_named_with_the_way_to_install_them(command, indexes, monkeypatch):
    from retrieval_kd.serving import settings

    monkeypatch.setattr(settings.importlib.util, "find_spec", lambda name: None)
    code, said = command("serve", "--index", indexes["dense"])
    assert (
        code == 2 and "pip install 'retrieval_kd[serve]'" in said and "fastapi and uvicorn" in said
    )
