"""`rkd score` with servers that are wrong, hostile or indiscreet."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import zlib
from functools import partial
from pathlib import Path

import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_json
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.llm.protocol import Prompt
from retrieval_kd.teachers.llm.server import bodies, calls
from retrieval_kd.teachers.llm.server.call_log import LOGS, CallLog
from retrieval_kd.teachers.llm.server.client import api_key
from tests.teachers.llm.server.command import words
from tests.teachers.llm.server.raw_server import Reply, chat, raw_server
from tests.teachers.llm.server.test_model import on
from tests.teachers.llm.server.test_score_on_server import said

pytest.importorskip("openai")
SECRET = "sk-planted-1234567890"
ESCAPE = "\x1b]0;pwned\x07\x9b31m\u202e"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.001)


def stored_scores(store: Path) -> list[float]:
    opened = ScoreStore(store)
    return opened.read(opened.only())["score"].to_pylist()


def test_a_key_goes_nowhere_even_if_a_server_repeats_it(
    command, tiny_collection, candidates, tmp_path, monkeypatch
):
    monkeypatch.setenv("RETRIEVAL_KD_API_KEY", SECRET)

    def reply(number: int, body: dict, key: str) -> Reply | dict:
        if number in (2, 3):
            return Reply(
                {"error": {"message": f"{ESCAPE}bad {key.upper()} {key[:9]}\x1b{key[9:]}"}}, 400
            )
        if number == 4:
            return chat(f"[2] > [1] {key}", finish_reason=f"stop {key}")
        return chat("[2] > [1]")

    teacher = "listwise:m?window=2&stride=1"
    with raw_server(reply) as url:
        code, told = command(
            *words(tiny_collection, candidates(3, 4), tmp_path / "s", teacher),
            *("--server", url, "--concurrency", 1),
        )
    assert code == 0 and "refuses a request" in told and "***" in told
    assert said(ScoreStore(tmp_path / "s"), ScoreStore(tmp_path / "s").only())
    files = [file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()]
    assert SECRET.lower() not in told.lower() and "\x1b" not in told and "\x9b" not in told
    assert not any(SECRET.encode() in data for data in files) and len(files) > 2


def test_a_key_that_no_request_can_carry_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("RETRIEVAL_KD_API_KEY", f" {SECRET}\n")
    assert api_key("http://127.0.0.1/v1") == SECRET
    monkeypatch.setenv("RETRIEVAL_KD_API_KEY", f"{SECRET}\n# mine")
    with pytest.raises(InputError, match="characters that no key has") as caught:
        api_key("http://127.0.0.1/v1")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_prompts_do_not_follow_a_redirect_to_another_address(status):
    seen: list[dict] = []

    def elsewhere(number: int, body: dict, key: str) -> dict:
        seen.append(body)
        return chat("yes")

    with (
        raw_server(elsewhere) as other,
        raw_server(lambda *_: Reply(b"", status, {"Location": f"{other}/x"})) as url,
        pytest.raises(InputError, match=rf"to another address: {other}/x\. To fix"),
    ):
        on(url).generate([Prompt("private")], 4)
    assert not seen


def test_a_redirect_within_the_address_is_followed():
    def reply(number: int, body: dict, key: str) -> Reply | dict:
        return Reply(b"", 307, {"Location": "/v1/other"}) if number == 1 else chat("yes")

    with raw_server(reply) as url:
        assert on(url).generate([Prompt("a")], 4)[0].text == "yes"


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("http://[bad", r"to what is no address: http://\[bad\. To fix: check the server's"),
        ("/v1/\x01", "to what is no address: /v1/"),
        ("", "in a circle: http://127.0.0.1"),
        ("/v1/chat/completions", "in a circle: http://127.0.0.1"),
    ],
)
def test_a_redirect_to_no_address_or_in_a_circle_is_said_once(location, problem):
    asked: list[int] = []

    def reply(number: int, body: dict, key: str) -> Reply:
        asked.append(number)
        return Reply(b"", 307, {"Location": location})

    with raw_server(reply) as url, pytest.raises(InputError, match=problem):
        on(url, concurrency=1).generate([Prompt("a")], 4)
    assert len(asked) <= bodies.MOST_REDIRECTS + 1


ANSWER = json.dumps(chat("yes")).encode()


@pytest.mark.parametrize(
    ("packing", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes), ("", bytes)],
)
def test_packed_answers_are_read(packing, pack):
    with raw_server(lambda *_: Reply(pack(ANSWER), headers={"Content-Encoding": packing})) as url:
        assert on(url).generate([Prompt("a")], 4)[0].text == "yes"


@pytest.mark.parametrize(
    ("status", "packing", "pack"),
    [
        (200, "gzip", gzip.compress),
        (200, "deflate", zlib.compress),
        (500, "gzip", gzip.compress),
        (400, "identity", bytes),
        (200, "br", bytes),
        (200, "gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    ],
)
def test_an_answer_that_is_too_large_is_missing_and_never_in_memory(
    status, packing, pack, monkeypatch
):
    monkeypatch.setattr(bodies, "LARGEST", 100_000)
    data = pack(b'{"choices": "' + b" " * 3_000_000 + b'"}')
    reply = Reply(data, status, {"Content-Encoding": packing})
    with raw_server(lambda number, *_: reply if number == 1 else chat("yes")) as url:
        model = on(url, concurrency=1)
        found = model.generate([Prompt("a"), Prompt("b")], 4)
    assert [one.status for one in found] == ["failed", "ok"] and model.usage.calls == 2


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"[" * 100_000, b'{"choices": [{"text": NaN}]}', b"null", b""]
)
def test_bytes_that_are_no_answer_are_missing(data):
    with raw_server(lambda number, *_: Reply(data) if number == 1 else chat("yes")) as url:
        model = on(url, concurrency=1, retries=0)
        found = model.generate([Prompt("a"), Prompt("b")], 4)
    assert [one.status for one in found] == ["failed", "ok"]


@pytest.mark.parametrize(
    "wait", ["Mon, 01 Jan 99999999 00:00:00 GMT", "nan", "-inf", "\x80", "9" * 400]
)
def test_a_wrong_retry_after_stops_nothing(wait):
    def reply(number: int, body: dict, key: str) -> Reply | dict:
        return Reply({}, 429, {"Retry-After": wait}) if number == 1 else chat("yes")

    with raw_server(reply) as url:
        found = on(url, concurrency=1).generate([Prompt("a"), Prompt("b")], 4)
    assert found[1].text == "yes"


def test_log_probabilities_that_cannot_be_true_are_no_scores(
    command, tiny_collection, candidates, tmp_path
):
    wrong = [[("yes", 2.5), ("no", -1.0)], [("yes", -9999.0), ("no", -1.0)],
             [("yes", float("nan")), ("no", -1.0)], [("yes", 0.9), ("no", 0.1)]]  # fmt: skip

    def reply(number: int, body: dict, key: str) -> dict:
        return chat("yes", wrong[number // 2 - 1] if number in (2, 4, 6, 8) else
                    [("yes", -0.5), ("no", -1.0)])  # fmt: skip

    with raw_server(reply) as url:
        code, told = command(
            *words(tiny_collection, candidates(3, 5), tmp_path / "s", "yesno:m"),
            *("--server", url, "--concurrency", 1, "--retries", 0),
        )  # fmt: skip
    assert code == 0 and "11 scored" in told
    assert set(stored_scores(tmp_path / "s")) == {0.5}
    assert "'yes' is listed, but its log-probability is not a number" in told
    assert "in 2 answers" in told and "2 pairs were not answered: its answers are garbled" in told
    assert "the same command asks for them again" in told and "nothing was" not in told


def test_half_a_character_in_one_answer_costs_no_other(
    command, tiny_collection, candidates, tmp_path
):
    def reply(number: int, body: dict, key: str) -> dict:
        return chat("[2] > [1] \ud83d" if number == 2 else "[2] > [1]")

    store = tmp_path / "s"
    teacher = "listwise:m?window=2&stride=1"
    with raw_server(reply) as url:
        code, told = command(
            *words(tiny_collection, candidates(3, 4), store, teacher), "--server", url
        )
    assert code == 0 and "9 answered" in told
    opened = ScoreStore(store)
    texts = [answer.text for answer in said(opened, opened.only()).values()]
    assert sum("\ufffd" in text for text in texts) == 1 and len(texts) == 9


def test_a_log_with_answers_that_cannot_be_true_stops_no_resume(tmp_path):
    rows = [
        {
            "request": digest_json({"prompt": "a"}),
            "answer": {"message": {"content": "\ud800"}},
            "calls": 1,
        },
        {
            "request": digest_json({"prompt": "b"}),
            "answer": {"text": "x", "logprobs": {"top_logprobs": [{"x": 3}]}},
        },
        {"request": digest_json({"prompt": "c"}), "answer": {"text": "x"}, "calls": "many"},
        {"request": digest_json({"prompt": "d"}), "answer": [], "prompt_tokens": -5},
        {"request": ["e"], "answer": {"text": "x"}, "prompt_tokens": 7},
    ]
    lines = [json.dumps(row) for row in rows] + ["5", "[" * 100_000]
    (tmp_path / LOGS.replace("*", "old")).write_text("\n".join(lines) + "\n")
    with CallLog(tmp_path) as log:
        found = {prompt: log.find({"prompt": prompt}) for prompt in "abcd"}
        assert found["a"].answer == {"message": {"content": "\ufffd"}}
        assert found["b"] is found["c"] is found["d"] is None
        assert sum(call.prompt_tokens for call in log.left) == 7


@pytest.mark.parametrize(
    ("top", "shown"),
    [
        ([("<think>", -0.01)], "likeliest: '<think>'"),
        ([("Yes", -0.2), ("No", -2.0)], "likeliest: 'Yes', 'No'"),
        ([("\x1b[31mred", -0.2)], "likeliest: '[31mred'"),
    ],
)
@pytest.mark.parametrize("teacher", ["yesno:m", "listwise:m?answer=logits&window=3&stride=2"])
def test_answers_without_the_options_say_what_was_there_instead(
    teacher, top, shown, command, tiny_collection, candidates, tmp_path
):
    with raw_server(lambda *_: chat("x", top)) as url:
        code, told = command(
            *words(tiny_collection, candidates(2, 3), tmp_path / "s", teacher), "--server", url
        )
    assert code == 1 and shown in told and "To fix:" in told and "\x1b" not in told
    assert (
        "neither 'yes' nor 'no' is" if "yesno" in teacher else "none of 'A', 'B', 'C' is"
    ) in told
    assert "again" not in told.replace("Asking again without a change", "")


def test_of_two_commands_at_once_the_second_refuses_and_names_the_first(
    tiny_collection, candidates, tmp_path
):
    asked, go_on = threading.Event(), threading.Event()

    def reply(number: int, body: dict, key: str) -> dict:
        asked.set()
        assert go_on.wait(120)
        return chat("yes", [("yes", -0.5), ("no", -1.0)])

    line = words(tiny_collection, candidates(1, 3), tmp_path / "s", "yesno:m", "--server")
    with raw_server(reply, together=True) as url:
        start = partial(
            subprocess.Popen,
            [sys.executable, "-m", "retrieval_kd", *line, url],
            stderr=subprocess.PIPE,
            text=True,
        )
        first = start()
        try:
            assert asked.wait(120)
            second = start()
            told = second.communicate(timeout=120)[1]
        finally:
            go_on.set()
        assert second.returncode == 2, told
        assert f"another command (process {first.pid}) is paying" in told.splitlines()[-1]
        assert "To fix: wait for it" in told and "Traceback" not in told
        assert first.wait(120) == 0
    assert stored_scores(tmp_path / "s") == [0.5] * 3


PAGE = b"<!doctype html><title>hello"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(PAGE, headers={"Content-Type": "text/html"}), "a web page and no JSON"),
        (Reply(PAGE), "garbled: broken JSON"),
        (Reply(b"[" * 100_000), "garbled: broken JSON"),
        (Reply(b'{"choices": ' + b"9" * 5_000 + b"}"), "garbled: Exceeds the limit (4300 digits)"),
        (Reply({"choices": []}), "garbled: there is no answer in them"),
        (Reply({"error": {"message": "CUDA out of memory"}}, 500), "500: CUDA out of memory"),
        (Reply({}, 429), "429: too many requests; --per-minute"),
        (Reply({"error": {"message": "too long"}}, 400), "refused the request: 400: too long"),
        (Reply(chat(None, refusal="x")), "garbled: there is no text"),
        (Reply(chat("", finish_reason="content_filter")), "a filter stopped the answer"),
        (Reply(chat("", message={"refusal": "I won't"})), "the model refused to answer: I won't"),
    ],
)
@pytest.mark.parametrize("teacher", ["yesno:m", "listwise:m?window=3&stride=2"])
def test_failures_say_why_and_how_often(
    teacher, reply, reason, command, tiny_collection, candidates, tmp_path
):
    with raw_server(lambda *_: reply) as url:
        code, told = command(
            *words(tiny_collection, candidates(1, 3), tmp_path / "s", teacher),
            *("--server", url, "--retries", 0),
        )
    assert code == 1 and "neither 'yes' nor 'no'" not in told, told
    assert f"{reason}" in told and ("(3 ×)" in told or "(1 ×)" in told), told
    assert "not answered" in told and "nothing was: check the server's address" in told
