"""No escape that a file, an ID or a name brings reaches the terminal, whatever the command."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from retrieval_kd.store.scores import ScoreStore
from tests.store.test_scores import KEY

ESCAPE = "\x1b]0;pwned\x07\x9b31m\u202e"


@pytest.fixture
def collection(tiny_collection: Path, tmp_path: Path) -> Path:
    """The tiny collection under a planted name, with planted IDs that have no text."""
    folder = tmp_path / f"c{ESCAPE}"
    shutil.copytree(tiny_collection, folder)
    with open(folder / "corpus.jsonl", "a") as corpus:
        corpus.write(json.dumps({"_id": f"e{ESCAPE}", "title": "", "text": ""}) + "\n")
    with open(folder / "qrels" / "test.tsv", "a") as qrels:
        qrels.write(f"q-birds4\tno{ESCAPE}\t1\n")
    return folder


def test_ids_files_and_names_bring_no_escapes(command, collection, tmp_path):
    run, store = tmp_path / f"r{ESCAPE}.trec", tmp_path / f"s{ESCAPE}"
    planted, names = tmp_path / "planted.trec", tmp_path / f"n{ESCAPE}.tsv"
    planted.write_text(f"q-birds4 Q0 d{ESCAPE} 1 1.0 x\n")
    names.write_text("q-birds4\tbirds1\t1.0\nq-birds4\tbirds2\t3.5\nq-birds4\tbirds3\t0.25\n")
    data = ("--collection", collection)
    told = []
    for arguments in (
        ("retrieve", *data, "--out", run),
        ("score", *data, "--candidates", planted, "--teacher", "bm25", "--store", store),
        ("score", *data, "--candidates", run, "--teacher", "bm25", "--store", store),
        ("scores", "import", names, *data, "--store", store, "--model", f"m{ESCAPE}"),
        ("scores", "inspect", store),
        ("scores", "export", store, "--teacher", f"m{ESCAPE}", "--out", tmp_path / "x.tsv"),
        ("scores", "export", store, "--teacher", f"q{ESCAPE}", "--out", tmp_path / "y.tsv"),
        ("scores", "verify", store),
        ("evaluate", *data, "--run", run, "--run", planted),
        ("evaluate", *data, "--run", tmp_path / f"no{ESCAPE}"),
        ("run", tmp_path / f"no{ESCAPE}.yaml"),
        ("report", tmp_path / f"no{ESCAPE}"),
        ("search", "--index", tmp_path / f"no{ESCAPE}", f"a {ESCAPE}"),
    ):  # fmt: skip
        told.append(command(*arguments)[1])
        assert told[-1] and not any(c in told[-1] for c in "\x1b\x07\x9b\u202e"), arguments[:2]
    assert sum("pwned" in text for text in told) >= len(told) - 1, "they are shown, cleaned"


def test_an_id_of_a_million_characters_is_cut(command, tiny_collection, tmp_path):
    file = tmp_path / "f.tsv"
    file.write_text(f"q-birds4\t{'x' * 10**6}\t1.0\n")
    code, told = command(
        *("scores", "import", file, "--store", tmp_path / "s", "--model", "m"),
        *("--collection", tiny_collection),
    )
    assert code == 2 and len(told) < 2_000


def test_a_damaged_store_brings_no_escapes(command, tmp_path):
    store = ScoreStore(tmp_path / "s")
    with store.writer(KEY) as writer:
        writer.add([f"q{ESCAPE}"], [f"d{ESCAPE}"], ["0" * 32], ["1" * 32], [1.0])
    (store.folder(KEY) / f"shard{ESCAPE}").write_text("")
    for arguments in (("inspect",), ("verify",), ("verify", "--clean")):
        told = command("scores", *arguments[:1], tmp_path / "s", *arguments[1:])[1]
        assert told and "\x1b" not in told


HALF = os.fsdecode(b"a\xb3b")


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "--index", "ix", HALF),
        ("retrieve", "--collection", HALF, "--out", "x.trec"),
        ("retrieve", "--collection", "c", "--out", HALF),
        ("scores", "import", "f.tsv", "--store", "s", "--model", HALF),
        ("run", "quickstart", f"out={HALF}"),
        ("score", f"--teacher={HALF}"),
        (HALF,),
    ],
)
def test_an_argument_that_is_not_utf8_is_refused_in_one_line(command, arguments):
    code, told = command(*arguments)
    assert code == 2 and told.count("\n") == 1 and "not UTF-8: " in told and "a?b" in told
