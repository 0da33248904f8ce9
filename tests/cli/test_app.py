"""The commands of the README, typed as written there."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retrieval_kd.cli.app import _OncePerMessage, main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rkd(capfd, monkeypatch):
    """Run the command in this process; gives what it printed, or its error if it must fail."""
    monkeypatch.chdir(ROOT)

    def run(*arguments: object, fails: bool = False) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        assert bool(exit.value.code) == fails, printed
        return printed.err if fails else printed.out

    return run


def test_the_installed_command_answers_and_a_mistake_has_no_traceback():
    """The real executable, once; the other tests call the same `main`."""
    command = Path(sys.executable).parent / "rkd"
    done = subprocess.run([command, "run", "no.yaml"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("rkd: no.yaml") and done.stderr.count("\n") == 1


def test_the_stages_one_by_one(rkd, tiny_collection, tiny_encoder, tmp_path):
    data = ("--collection", tiny_collection)
    for split in ("train", "test"):
        rkd(
            "retrieve",
            *data,
            "--split",
            split,
            "--with",
            "bm25",
            "--depth",
            20,
            "--out",
            tmp_path / f"{split}.trec",
        )
    rkd(
        "retrieve",
        *data,
        "--split",
        "test",
        "--with",
        tiny_encoder,
        "--depth",
        20,
        "--out",
        tmp_path / "dense.trec",
    )
    rkd(
        "fit-teacher",
        *data,
        "--candidates",
        tmp_path / "train.trec",
        "--base",
        tiny_encoder,
        "--steps",
        2,
        "--layers",
        "0,2",
        "--set",
        "batch_queries=4",
        "--out",
        tmp_path / "teacher",
    )
    fitted = json.loads((tmp_path / "teacher" / "training.json").read_text())
    assert fitted["settings"]["batch_queries"] == 4
    assert json.loads((tmp_path / "teacher" / "config.json").read_text())["num_hidden_layers"] == 2
    scored = [
        rkd(
            "score",
            *data,
            "--candidates",
            tmp_path / "train.trec",
            "--teacher",
            tmp_path / "teacher",
            "--store",
            tmp_path / "store",
        )
        for _ in range(2)
    ]
    assert " 0 known" in scored[0] and " 0 scored" in scored[1]
    rkd(
        "score",
        *data,
        "--candidates",
        tmp_path / "train.trec",
        "--teacher",
        "bm25",
        "--store",
        tmp_path / "store",
    )
    assert "several teachers" in rkd(
        "train",
        *data,
        "--store",
        tmp_path / "store",
        "--student",
        tiny_encoder,
        "--out",
        tmp_path / "student",
        fails=True,
    )
    trained = rkd(
        "train",
        *data,
        "--split",
        "train",
        "--store",
        tmp_path / "store",
        "--teacher",
        "bm25",
        "--teacher",
        tmp_path / "teacher",
        "--student",
        tiny_encoder,
        "--layers",
        "0,3",
        "--objective",
        "kl",
        "--steps",
        3,
        "--out",
        tmp_path / "student",
    )
    assert "2 layers" in trained
    rkd(
        "index",
        *data,
        "--model",
        tmp_path / "student",
        "--spec",
        "indexes/hnsw.yaml",
        "--out",
        tmp_path / "index",
    )
    answer = rkd("search", "--index", tmp_path / "index", "sparrow wing")
    assert len(re.findall(r"^ *\d+\. ", answer, re.M)) == 10
    (tmp_path / "questions.tsv").write_text("one\tsparrow wing\ntwo\tcastle gambit\n")
    rkd(
        "search",
        "--index",
        tmp_path / "index",
        "--queries",
        tmp_path / "questions.tsv",
        "--out",
        tmp_path / "questions.trec",
    )
    table = rkd(
        "evaluate",
        *data,
        "--split",
        "test",
        "--run",
        tmp_path / "test.trec",
        "--run",
        tmp_path / "dense.trec",
        "--json",
        tmp_path / "out.json",
    )
    assert "nDCG@10" in table
    assert set(json.loads((tmp_path / "out.json").read_text())["systems"]) == {"test", "dense"}
    assert "all is well" in rkd("scores", "verify", tmp_path / "store")
    assert len(json.loads(rkd("scores", "inspect", tmp_path / "store", "--json"))) == 2
    wrong = rkd("search", "--index", tmp_path / "index", "--model", tiny_encoder, "x", fails=True)
    assert "not with" in wrong


def test_pairs_that_a_teacher_compared_are_learnt_as_pairs(
    rkd, tiny_collection, tiny_encoder, tiny_decoder, tmp_path
):
    """PairDistill, command by command: scores of one teacher, pairs of another."""
    run, store = tmp_path / "dev.trec", ("--store", tmp_path / "store")
    data = ("--collection", tiny_collection, "--split", "dev")
    rkd("retrieve", *data, "--with", "bm25", "--depth", 4, "--out", run)
    pairwise = f"pairwise:{tiny_decoder}?passage_tokens=8&pairs=adjacent"
    for teacher in ("bm25", pairwise):
        rkd("score", *data[:2], "--candidates", run, "--teacher", teacher, *store)
    told = (*data, *store, "--teacher", "bm25", "--student", tiny_encoder, "--steps", 2)
    pairs = ("--pairs", f"pairwise:{tiny_decoder}")
    wrong = rkd("train", *told, *pairs, "--out", tmp_path / "s", fails=True)
    assert "add pair_kl" in wrong
    rkd("train", *told, *pairs, "--objective", "kl+pair_kl", "--out", tmp_path / "s")
    record = json.loads((tmp_path / "s" / "training.json").read_text())
    assert [term["teacher"] for term in record["terms"]] == ["stored", "pairs:1"]
    none = rkd(
        "train", *told, "--pairs", "bm25", "--objective", "pair_kl", "--out", tmp_path / "t",
        fails=True,
    )  # fmt: skip
    assert "pairs:1 is bm25, which is not a pairwise teacher" in none


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["retrieve", "--collection", "nosuch", "--out", "x.trec"], "unknown collection"),
        (["retrieve", "--collection", "{c}", "--split", "nosuch", "--out", "x"], "no split"),
        (["retrieve", "--collection", "{c}", "--with", "/no/model", "--out", "x"], "no such model"),
        (["retrieve", "--collection", "{c}", "--with", "no/hub-model", "--out", "x"], "hub"),
        (["retrieve", "--collection", "{c}", "--with", "package:nosuch", "--out", "x"], "package"),
        (
            [
                "score",
                "--collection",
                "{c}",
                "--candidates",
                "no.trec",
                "--teacher",
                "bm25",
                "--store",
                "x",
            ],
            "no.trec",
        ),
        (["train", "--collection", "{c}", "--student", "{e}", "--out", "x"], "nothing to train on"),
        (
            ["train", "--collection", "{c}", "--student", "{e}", "--out", "x", "--store", "no"],
            "no score store",
        ),
        (
            [
                "train",
                "--collection",
                "{c}",
                "--student",
                "{e}",
                "--out",
                "x",
                "--objective",
                "kll",
            ],
            "kll",
        ),
        (
            [
                "train",
                "--collection",
                "{c}",
                "--student",
                "{e}",
                "--out",
                "x",
                "--kind",
                "cross_encoder",
                "--dev-split",
                "dev",
            ],
            "--dev-split",
        ),
        (
            ["index", "--collection", "{c}", "--model", "{e}", "--out", "x", "--spec", "no.yaml"],
            "no.yaml",
        ),
        (["search", "--index", "no-index", "a question"], "no-index"),
        (["search", "--index", "no-index"], "a question or"),
        (["evaluate", "--collection", "{c}", "--run", "no.trec"], "no.trec"),
        (["suite", "local", "--depth", "ten"], "To fix: give a whole number"),
        (["audit", "--train", "a:train", "--eval", "a:test", "--cosine", "x"], "give a number"),
        (["suite", "local", "--depth", "0"], "rkd suite --help says"),
        (["audit", "--train", "a:train"], "'--eval'. To fix: add it"),
        (["run", "no.yaml"], "no.yaml"),
        (["report", "no-folder"], "no finished run"),
        (["scores", "inspect", "no-store"], "no score store"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    rkd, arguments, message, tiny_collection, tiny_encoder
):
    given = [a.format(c=tiny_collection, e=tiny_encoder) for a in arguments]
    error = rkd(*given, fails=True)
    assert message in error and error.count("\n") == 1, error


def test_every_command_explains_itself(rkd):
    commands = re.findall(r"^│ ([a-z-]+) ", rkd("--help"), re.M)
    assert {"run", "retrieve", "score", "train", "index", "search", "evaluate"} <= set(commands)
    for command in commands:
        assert "Usage" in rkd(command, "--help")


def test_the_schema_describes_every_setting(rkd):
    schema = json.loads(rkd("run", "configs/quickstart.yaml", "--schema"))
    for part in [schema, *schema["$defs"].values()]:
        for name, field in part["properties"].items():
            assert field.get("description"), name


def test_judged_documents_are_scored_where_the_candidates_lack_them(rkd, tiny_collection, tmp_path):
    data = ("--collection", tiny_collection)
    narrow = tmp_path / "narrow.trec"
    rkd("retrieve", *data, "--split", "train", "--with", "bm25", "--depth", 2, "--out", narrow)
    score = ("score", *data, "--candidates", narrow, "--teacher", "bm25", "--store", tmp_path / "s")
    rkd(*score)
    more = rkd(*score, "--judged", "train")
    assert " 0 scored" not in more  # 36 judged documents, of which two per query cannot hold all
    assert " 0 scored" in rkd(*score, "--judged", "train")


MISTAKES = """
import sys
from retrieval_kd.cli.app import main
for line in sys.argv[1].splitlines():
    try:
        main(line.split())
    except SystemExit as end:
        assert end.code == 2, line
assert "torch" not in sys.modules
"""


def test_a_mistake_on_the_command_line_is_reported_before_a_model_library_is_loaded(tmp_path):
    (tmp_path / "list.yaml").write_text("- objective: kl\n")
    (tmp_path / "manifest.json").write_text("{}")  # as an index has one
    train = f"train --collection c --out {tmp_path / 'o'} --student"
    lines = {
        "suite no-such-suite": "unknown suite",
        "suite beir --measures ERR@10": "'ERR@10' is not computed",
        "suite beir --only no-such": "no collection 'no-such'",
        "suite beir --with bm25 --baseline other": "none of the systems",
        "suite beir --with lucene+./no-such-model": "no such model folder",
        "search --index no-such-index x": "no finished index",
        f"search --index {tmp_path}": "either a question or --queries",
        f"search --index {tmp_path} --queries no-such.tsv --out o.trec": "no-such.tsv",
        f"search --index {tmp_path} --model ./no-such-model x": "no such model folder",
        f"{train} ./no-such-model": "no such model folder",
        f"{train} {tmp_path} --training no-such.yaml": "no-such.yaml",
        f"{train} {tmp_path} --training {tmp_path / 'list.yaml'}": "list.yaml",
        f"{train} {tmp_path} --layers 0,x": "cannot read the layers",
        f"{train} {tmp_path} --candidates no-such.trec": "no-such.trec",
    }
    done = subprocess.run(
        [sys.executable, "-c", MISTAKES, "\n".join(lines)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    for said, expected in zip(done.stderr.splitlines(), lines.values(), strict=True):
        assert said.startswith("rkd: ") and expected in said


def test_a_repeated_warning_is_printed_once():
    once, record = _OncePerMessage(), logging.makeLogRecord({"msg": "2 × empty document kept"})
    other = logging.makeLogRecord({"msg": "another"})
    assert [once.filter(each) for each in (record, record, other)] == [True, False, True]


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize(("stop", "code"), zip(STOPS, (130, 143, 129), strict=True))
@pytest.mark.parametrize(("name", "resumes"), [("run", True), ("evaluate", False)])
def test_a_stopped_command_leaves_what_it_was_in_and_says_so(
    stop, code, name, resumes, monkeypatch, capsys
):
    """Writers of the score store keep what they have when they are left, by an exit too."""
    left = []

    def command(arguments: object, prog_name: str) -> None:
        try:
            os.kill(os.getpid(), stop)
            time.sleep(10)
        finally:
            left.append(True)

    before = [signal.getsignal(number) for number in STOPS]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    monkeypatch.setattr("retrieval_kd.cli.app.app", command)
    try:
        with pytest.raises(SystemExit) as end:
            main([name])
    finally:
        for number, handler in zip(STOPS, before, strict=True):
            signal.signal(number, handler)
    assert end.value.code == code and left
    said = capsys.readouterr().err
    assert said.startswith("rkd: interrupted") and said.count("\n") == 1
    assert ("the same command resumes from there" in said) == resumes


PRINTS = """
import sys
from retrieval_kd.cli import app
def command(arguments, prog_name):
    for _ in range(int(arguments[0])):
        print("x" * 100)
app.app = command
app.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("lines", "into", "code", "said"),
    [
        (10_000, "| head -1", 141, "rkd: stopped, since its output is no longer read\n"),
        (1, "| (exec 0<&-; sleep 9)", 141, "rkd: stopped, since its output is no longer read\n"),
        (10_000, "> /dev/full", 2, "standard output"),
        (1, "> /dev/full", 2, "standard output"),
    ],
)
def test_an_output_that_takes_nothing_ends_the_command_in_one_line(lines, into, code, said):
    command = f"set -o pipefail; '{sys.executable}' -c \"$1\" {lines} {into}"
    done = subprocess.run(["bash", "-c", command, "-", PRINTS], capture_output=True, text=True)
    assert done.returncode == code and done.stderr.startswith("rkd: ") and said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "out/a.trec"), "out/a.trec: No space left"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "Input/output error"),
        (ValueError("I/O error: File too large (os error 27)"), "File too large"),
    ],
)
def test_a_write_that_fails_is_one_line_whatever_library_raised_it(
    error, said, monkeypatch, capsys
):
    def command(arguments: object, prog_name: str) -> None:
        raise error

    monkeypatch.setattr("retrieval_kd.cli.app.app", command)
    monkeypatch.setattr("retrieval_kd.cli.app._catch_signals", lambda command: None)
    with pytest.raises(SystemExit) as end:
        main([])
    printed = capsys.readouterr().err
    assert end.value.code == 2 and said in printed and printed.count("\n") == 1


def test_ctrl_c_while_the_command_is_imported_is_one_line():
    stop = (
        "import os, signal, sys\nfrom retrieval_kd.__main__ import main\n"
        "class Stop:\n    def find_spec(name, *rest):\n"
        "        if name == 'retrieval_kd.cli.app': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop)\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", stop], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "rkd: interrupted\n")


FOREIGN = """
import warnings
from retrieval_kd.cli import app
def command(arguments, prog_name):
    warnings.warn("w\x1b[31m")
    raise KeyError("k\x1b[31m " + "sk-" + "secret" * 3)
app.app = command
app.main(["run"])
"""


def test_warnings_and_tracebacks_of_libraries_are_cleaned():
    environment = {**os.environ, "OPENAI_API_KEY": "sk-" + "secret" * 3}
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1 and "Traceback" in done.stderr and "KeyError" in done.stderr
    assert "UserWarning: w" in done.stderr and "***" in done.stderr
    assert "\x1b" not in done.stderr and "secretsecret" not in done.stderr


SCORED = ("--collection", "c", "--candidates", "r", "--teacher", "bm25", "--store", "s")
TRAINED = ("--collection", "c", "--student", str(ROOT), "--out", "o")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--measures="], "an argument is empty: '--measures='"),
        (["search", "--index", "x", " "], "an argument is empty"),
        (["retrieve", "--nosuch"], "No such option: --nosuch"),
        (["nosuch"], "No such command 'nosuch'"),
        (["--nosuch"], "No such option: --nosuch"),
        (["retrieve", "--depth", "1_0"], "'1_0' is not a valid integer"),
        (["retrieve", "--depth", "٣"], "is not a valid integer"),
        (["teach", "compare", "--hour-price", "1_0"], "'1_0' is not a valid number"),
        (["retrieve", "--keep-self=yes"], "does not take a value"),
        (["score", *SCORED, "--structured"], "--structured is for servers"),
        (["train", *TRAINED, "--weight", "2"], "--weight is about teachers of a store"),
        (["train", *TRAINED, "--pairs", "a"], "--pairs is about teachers of a store"),
        (["train", *TRAINED, "--layers", "0,1_0"], "cannot read the layers"),
        (["train", *TRAINED, "--layers", "[[0]]"], "cannot read the layers"),
        (["evaluate", "--card-system", "a"], "--card-system is about --card"),
    ],
)
def test_what_an_option_cannot_mean_is_said_in_one_line(rkd, arguments, message):
    said = rkd(*arguments, fails=True)
    assert message in said and "To fix" in said and said.count("\n") == 1, said
