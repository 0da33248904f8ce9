"""What holds of every command: nothing twice, no output over an input, `~` is the home folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval_kd.schema import apply_overrides, read_yaml
from tests.cli.hostile import BUILT, CALLS, Call, Option, execute

FOLDERS = [
    "collection",
    "encoder",
    "cross",
    "decoder",
    "adapter",
    "multi",
    "store",
    "index",
    "report",
    "data",
    "folder",
]  # of the names in the calls; all others are files


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that is the home too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def commands(built: Any = BUILT, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for name, command in built.commands.items():
        inside = hasattr(command, "commands")
        yield from commands(command, (*path, name)) if inside else [((*path, name), command)]


EVERY = dict(commands())
FLAGS = [
    (path, param)
    for path, command in EVERY.items()
    for param in command.params
    if param.opts[0].startswith("--") and param.name != "help"
]


def test_all_commands_are_found() -> None:
    assert len(EVERY) > 20 and {call.path for call in CALLS} == {*EVERY}


@pytest.mark.parametrize(
    ("path", "param"), FLAGS, ids=lambda one: " ".join(one) if isinstance(one, tuple) else one.name
)
def test_an_option_with_one_value_is_not_given_twice(path: tuple[str, ...], param: Any) -> None:
    flag = param.opts[0]
    word = flag if param.is_flag else f"{flag}=1"
    code, said = execute([*path, word, word])
    assert code == 2 and ("is given 2 times" in said) != param.multiple, said
    assert param.multiple or said.startswith(f"rkd: {flag} is given 2 times. To fix: give it once")


def pairs() -> Iterator[tuple[Call, str, str]]:
    """Each output of each call, with what the call reads."""
    for call in CALLS:
        words = call.options | {f"#{place}": word for place, word in enumerate(call.arguments)}
        flat = {name: one if isinstance(one, list) else [one] for name, one in words.items()}
        read = {str(v) for values in flat.values() for v in values if "{" in str(v)}
        for out in [name for name, [value, *_] in flat.items() if re.match(r"o\b", str(value))]:
            yield from ((call, out, value) for value in sorted(read))


PAIRS = list(pairs())


@pytest.mark.parametrize(
    ("call", "out", "value"),
    PAIRS,
    ids=[" ".join([*call.path, out, value]) for call, out, value in PAIRS],
)
def test_no_output_is_written_over_an_input(call: Call, out: str, value: str, here: Path) -> None:
    words = re.findall(r"\{(\w+)\}", str(call))
    named = {word: here / (word if word in FOLDERS else f"{word}.x") for word in words}
    for word, path in named.items():
        path.mkdir() if word in FOLDERS else path.touch()
    [word] = re.findall(r"\{(\w+)\}", value)
    path = named[word]
    os.symlink(path.name, here / "link")
    for spelling in (f"{path}", f"./{path.name}", "link", f"{here}/../{here.name}/{path.name}"):
        changed = Option(call.path, out, str, False).put(call, spelling)
        line = [re.sub(r"\{(\w+)\}", lambda m: str(named[m[1]]), w) for w in changed.line()]
        code, said = execute(line)
        assert code == 2 and said.count("\n") == 1, said
        assert re.search(r"would overwrite what \S+ reads|this is a folder, and a file is", said), (
            said
        )


def test_pairs_are_of_every_command_with_an_output() -> None:
    with_outputs = {call.path for call, *_ in PAIRS}
    assert {("train",), ("merge",), ("parts",), ("scores", "export"), ("audit",)} < with_outputs
    assert len(PAIRS) >= 80


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("evaluate --run a --qrels b --json x --latex x", "--latex would overwrite --json"),
        ("evaluate --run a --qrels b --json x --latex ./x", "--latex would overwrite --json"),
        ("report folder --out folder/report.json", "--out would overwrite what FOLDER reads"),
        ("scores export folder --out folder/f/shard-1.parquet", "--out would overwrite what DIR"),
        ("retrieve --collection folder:test --out folder/qrels/test.tsv", "what --collection"),
        ("fit-teacher --collection c --base yesno:folder/f --out folder", "what --base reads"),
        ("audit --train file:a --eval c:test --json a", "what --train reads"),
        ("train --collection c --student folder/f --out folder", "what --student reads"),
    ],
)
def test_outputs_over_parts_of_inputs_and_over_each_other(
    line: str, problem: str, here: Path
) -> None:
    for name in ("folder/f", "folder/qrels"):
        (here / name).mkdir(parents=True)
    for name in ("a", "b", "m", "folder/report.json", "folder/f/shard-1.parquet"):
        (here / name).write_text("kept")
    (here / "folder/qrels/test.tsv").touch()
    code, said = execute(line.split())
    assert code == 2 and problem in said


def test_an_output_beside_what_a_folder_is_read_for_is_written() -> None:
    Path("folder").mkdir()
    Path("folder/report.html").touch()
    code, said = execute(["report", "folder", "--out", "folder/report.html"])
    assert code == 2 and "no finished run there" in said


def test_results_beside_a_collection_are_written_again() -> None:
    Path("results.json").touch()
    line = "diagnose --collection . --student x.trec --teacher y.trec --json results.json"
    code, said = execute(line.split())
    assert code == 2 and "overwrite" not in said, said


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call.path))
def test_a_tilde_is_the_home_folder_in_every_option_and_argument(call: Call, here: Path) -> None:
    line = [re.sub(r"\{(\w+)\}", r"~/\1", word) for word in call.line()][len(call.path) :]
    command = EVERY[call.path]
    values, *_ = command.make_parser(command.context_class(command)).parse_args(line)
    assert "~" not in str(values), values


def test_a_tilde_makes_no_folder_of_that_name(here: Path) -> None:
    (here / "r.trec").write_text("q1 Q0 d1 1 2.5 a\n")
    (here / "q.txt").write_text("q1 0 d1 1\n")
    code, said = execute(["evaluate", "--run=~/r.trec", "--qrels=~/q.txt", "--json=~/made/x.json"])
    assert code == 0, said
    assert (here / "made" / "x.json").is_file() and not (here / "~").exists()


@pytest.mark.parametrize(
    "line",
    ["retrieve --collection c --with bm25 --out bm25", "suite nosuch --data folder --out nosuch"],
)
def test_an_output_that_is_called_like_a_word_may_be_written_again(line: str, here: Path) -> None:
    (here / "bm25").touch()
    (here / "nosuch").mkdir()
    (here / "folder").mkdir()
    code, said = execute(line.split())
    assert code == 2 and "overwrite" not in said, said


def test_a_tilde_alone_is_null_in_a_setting_and_the_home_in_an_option(here: Path) -> None:
    run, index = EVERY["run",], EVERY["index", "build"]
    values, *_ = run.make_parser(run.context_class(run)).parse_args(["c.yaml", "splits.dev=~"])
    assert list(values["overrides"]) == ["splits.dev=~"]
    values, *_ = index.make_parser(index.context_class(index)).parse_args(["--out=~"])
    assert values["out"] == str(here)


def test_a_question_is_no_path() -> None:
    command = EVERY["search",]
    values, *_ = command.make_parser(command.context_class(command)).parse_args(["~/.bashrc?"])
    assert values["query"] == "~/.bashrc?"


def test_a_tilde_in_a_configuration_is_the_home_folder(here: Path) -> None:
    file = here / "c.yaml"
    file.write_text("out: ~/o\nteacher: {fuse_with: [yesno:~/m, bm25]}\nx: ~\ntext: a ~/b\n")
    values = apply_overrides(read_yaml(file), ["encoder=~/e"])
    assert values == {
        "out": f"{here}/o",
        "teacher": {"fuse_with": [f"yesno:{here}/m", "bm25"]},
        "x": None,
        "text": "a ~/b",
        "encoder": f"{here}/e",
    }
