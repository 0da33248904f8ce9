"""`rkd generate` against a server: killed and continued, no answered call is made again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from retrieval_kd.cli.generate import Written
from retrieval_kd.data.collection import open_collection
from retrieval_kd.teachers.generate.queries import WORDS
from tests.teachers.llm.server.echo_server import serving

WRITTEN = "written about {}"


def say(text: str) -> dict:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def shown(body: dict) -> str:
    return re.findall("<document>(.*?)</document>", body["messages"][-1]["content"])[-1]


def test_a_killed_job_continues_and_its_queries_can_be_trained_on(
    tiny_collection, tmp_path, command
):
    asked: Counter[str] = Counter()
    tenth, killed = threading.Event(), threading.Event()

    def answer(body):
        text = shown(body)
        asked[text] += 1
        if sum(asked.values()) == 10:
            tenth.set()
            killed.wait(300)
        words = text.split()
        return say(f"<query>{' '.join(words[:4])}</query>\n<query>{' '.join(words[-3:])}</query>")

    out, store = tmp_path / "out", tmp_path / "store"
    with serving(answer) as url:
        words = ["generate", "--collection", tiny_collection, "--model", "writer", "--store", store]
        words += ["--out", out, "--server", url, "--concurrency", "1", "--per-document", "2"]
        process = subprocess.Popen([sys.executable, "-m", "retrieval_kd", *map(str, words)])
        assert tenth.wait(300)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed.set()
        code, said = command(*words)
        assert code == 0, said
        texts = {document.full for document in open_collection(tiny_collection).documents.iterate()}
        assert set(asked) == texts
        assert sorted(asked.values())[-2:] == [1, 2]  # once more only what was in flight
        code, again = command(*words, "--round-trip", "0")
        assert code == 0 and sum(asked.values()) == len(texts) + 1
        assert "120 written" not in again and "(60 answers were stored)" in again.replace("\n", "")
    about = json.loads((out / "generation.json").read_text())
    assert about["queries"]["not_found"] == 0 and about["answers"]["ok"] == 60
    assert f"kept       {about['queries']['kept']:>9,}" in again
    config = ["run", "configs/quickstart.yaml", f"collection={out}", "unlabelled.log=generated"]
    code, said = command(*config, f"out={tmp_path / 'run'}", "--dry-run")
    assert code == 0 and "60 documents" in said, said


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--examples", "2", "--examples-split", "nowhere"], "no split 'nowhere'"),
        (["--examples", "99"], "relevant documents to show, 99 are wanted"),
        (["--against", "nowhere"], "no split 'nowhere'"),
        (["--found-by", "./nothing"], "no such model folder"),
        (["--split", "test"], "has a split 'test'"),
        (["--max-tokens", "5"], "--max-tokens is for servers"),
        (["--write", "poems"], "'poems' is not one of"),
        (["--round-trip", "0", "--found-by", "bm25"], "--found-by is for the round-trip check"),
        (["--examples-split", "train"], "--examples-split is for examples"),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_loaded(
    tiny_collection, tiny_decoder, tmp_path, command, options, told
):
    words = ["generate", "--collection", tiny_collection, "--model", tiny_decoder]
    words += ["--store", tmp_path / "store", "--out", tmp_path / "out", *options]
    code, said = command(*words)
    assert code == 2 and told in said, said
    assert not (tmp_path / "store").exists()


def test_a_model_here_whose_words_are_not_in_the_form_leaves_its_answers(
    tiny_collection, tiny_decoder, tmp_path, command
):
    words = ["generate", "--collection", tiny_collection, "--model", tiny_decoder]
    words += ["--store", tmp_path / "store", "--out", tmp_path / "out", "--documents", "3"]
    code, said = command(*words, "--per-document", "1", "--query-tokens", "8")
    assert code == 1 and "no query is left" in said and "No answer has the form" in said
    assert len(list((tmp_path / "store").glob("*/shard-*.parquet"))) == 1


def test_it_is_said_where_the_last_queries_were_lost(tiny_collection, tmp_path, command):
    words = ["generate", "--collection", tiny_collection, "--model", "writer", "--documents", "3"]
    words += ["--store", tmp_path / "store", "--out", tmp_path / "out", "--retries", "0"]
    with serving(lambda body: {}) as url:
        code, said = command(*words, "--server", url)
    assert code == 1 and "No answer came" in said and "has the form" not in said, said
    assert "3  documents: its answers are garbled" in said, said
    with serving(lambda body: say("<query>zebra xylophone</query>")) as url:
        code, said = command(*words, "--server", url)
    assert code == 1 and "Raise --round-trip" in said and "has the form" not in said, said


def test_every_kind_can_be_asked_for():
    assert {one.value for one in Written} == set(WORDS)
