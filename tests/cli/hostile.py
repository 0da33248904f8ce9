"""Every option and argument of every command, a cheap call of each, and values that mean harm."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from unittest import mock

import numpy as np
import typer
import yaml
from typer.main import get_command
from typer.models import ArgumentInfo, OptionInfo

from retrieval_kd.cli.app import app, main

NUMBERS = [
    "nan", "-inf", "1e400", "-1e400", "1e-400", "-1", "-0", "0", "9" * 20, "1.5", "1e3", "1_0",
    "٣", "９", "0x10", "+1", "1,5", "True", "None", "1 2", " 1", "1\x1b[31m", "½", "", " ", "0.0",
]  # fmt: skip
TEXTS = [
    "", " ", "\t", "\n", "x\ny", "\x1b[31mred\x07", "\u202eabc\u2066", "\ud800", "é\u0301",
    "x" * 10_000, "%s%n", "{}", "{0.__class__}", "[red]", "[/red]", "[link=http://x]y", ":smile:",
    "-", "--", "--x", "٣", "1_0", "nan", "9" * 20, "-1", "None", "null", "true", ",", "a,,b",
    " , ", "0,0", "0,99", "0,1,", "[0", "1-3", "0,1_0", "[[0]]", "ndcg@10,ndcg@10", "ndcg@0",
    "ndcg@1_0", "ndcg@-1", "ndcg@", "@", "ndcg@9" + "9" * 19, "bm25", "bm25,bm25", "bm25+", "+",
    "bm25+bm25", "bm25?", "bm25?x=1", "bm25?k1=nan", "bm25?k1=1_0", "lucene", "bm25-lucene",
    "yesno:", "yesno:{encoder}", "yesno:{decoder}?passage_tokens=1_0",
    "yesno:{decoder}?prompt={text}", "pointwise:{collection}", "dense:{collection}",
    "dense:{folder}", "listwise:{decoder}?window=0", "sparse:{encoder}", "multi_vector:{encoder}",
    "package:", "package:os", "package:../x", "kl", "kl(", "kl()", "kl(teacher_temperature=nan)",
    "kl(teacher_temperature=1_0)", "kl:1e400", "kl:1_0", "kl+kl", "infonce@nowhere",
    "kl(x=__import__('os'))", "http://", "http://x:99999/v1", "file:///etc/passwd",
    "http://u:secret-word@127.0.0.1:9/v1", "http://[::1", "http://127.0.0.1:9/\x1b", "seed=1",
    "=1", "seed=", "seed", "steps=[", "a.b.c=1", "steps={a: 1}", "steps=1_0", "steps=1:30",
    "dropout=nan", "steps=0x3", "steps='1_0'", "dropout=.inf", ".=1", "a..b=1", "steps.x=1",
    "seed=!!python/object:x", "seed=&a [*a]", "seed=\x1b", "seeds=[0,0]", "seeds=[]", "name=",
    "students.x=1", "a=" + "[" * 3_000, "a." * 3_000 + "a=1", "extends=x", "<<=x", "test", "train",
    "TEST", "test ", "{collection}", "{collection}:test", "{collection}:no", "python-api:",
    "python-api:{folder}", "run:", "run:{folder}", "file:{text}", "file:{folder}", "file:",
    "scores:", "scores:{store}", "scores:{folder}", "{folder}", "{text}", "{empty}", "{loop}",
    "{binary}", "{socket}", "{encoder}", "{cross}", "{decoder}", "{run}", "{result}", "{index}",
    "{locked}/x", "..", "../..", "~", "~nobody/x", "no/such", "a/b/c/d", "x" * 300, "C:\\x",
    "z_scores,ranks", "learned", "platt", "borda", "residual", "static", "q_proj,,v_proj",
    "q_proj,q_proj", "json", "trec",
]  # fmt: skip
PATHS = [
    "", " ", ".", "..", "~", "-", "no/such/thing", "new\x1b[31m.txt", "new\nline", "x" * 300,
    "x" * 10_000, "\ud800", "a/" * 2_000 + "b", "[red]x", "{folder}", "{text}", "{empty}",
    "{binary}", "{loop}", "{dangling}", "{socket}", "{text}/below", "{locked}", "{locked}/x",
    "{unreadable}", "{encoder}", "{cross}", "{decoder}", "{adapter}", "{collection}", "{store}",
    "{index}", "{result}", "{run}", "{suite}", "{config}", "{qrels}", "{yaml}", "{list}",
    "{queries}", "{report}", "x.tsv", "x.parquet", "x.gz", "x.jsonl", "x.nosuch",
]  # fmt: skip
FLAGS = ["", "x", "0", "yes", "\x1b"]


@dataclass
class Call:
    """A command line: the command, its arguments and its options; True stands for a flag."""

    path: tuple[str, ...]
    arguments: list[str] = field(default_factory=list)
    options: dict[str, str | bool | list[str]] = field(default_factory=dict)
    code: int = 0  # what it exits with as it is

    def line(self) -> list[str]:
        words = list(self.path)
        for flag, value in self.options.items():
            for each in value if isinstance(value, list) else [value]:
                words.append(flag if each is True else f"{flag}={each}")
        return [*words, *self.arguments]


@dataclass(frozen=True)
class Option:
    """An option or argument of a command."""

    path: tuple[str, ...]
    name: str  # the flag, or the argument's place as #0
    kind: Any  # the Python type of one value
    required: bool

    @property
    def values(self) -> list[str]:
        if self.kind is bool:
            return FLAGS
        return {int: NUMBERS, float: NUMBERS, Path: PATHS}.get(self.kind, TEXTS)

    def __str__(self) -> str:
        return " ".join([*self.path, self.name])

    def is_in(self, call: Call) -> bool:
        place = self.name.removeprefix("#")
        return self.name in call.options or (
            place != self.name and int(place) < len(call.arguments)
        )

    def put(self, call: Call, value: str) -> Call:
        """The call with another value."""
        if not self.name.startswith("#"):
            return Call(call.path, call.arguments, {**call.options, self.name: value}, call.code)
        place = int(self.name[1:])
        arguments = [*call.arguments[:place], value, *call.arguments[place + 1 :]]
        return Call(call.path, arguments, call.options, call.code)

    def without(self, call: Call) -> Call:
        options = {flag: value for flag, value in call.options.items() if flag != self.name}
        arguments = call.arguments
        if self.name.startswith("#"):
            arguments = arguments[: int(self.name[1:])]
        return Call(call.path, arguments, options, call.code)

    def allows(self, value: str) -> bool:
        """Whether a value is within what the option's type says, where that can be said."""
        if not value.strip():
            return False
        if self.kind in (int, float):
            return value.strip().isascii() and "_" not in value and "x" not in value
        if get_origin(self.kind) is Literal:
            return value in get_args(self.kind)
        return self.kind is not bool


def one_of(hint: Any) -> Any:
    """The type of one value: `Path` of `list[Path] | None`."""
    while get_origin(hint) is not Literal and (inside := get_args(hint)):
        hint = inside[0]
    return hint


def everything(app: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[Option]:
    """Each option and argument of each command."""
    for group in app.registered_groups:
        yield from everything(group.typer_instance, (*path, str(group.name)))
    for command in app.registered_commands:
        words = (*path, command.name or command.callback.__name__)
        places = 0
        signature = inspect.signature(command.callback).parameters
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            about = [a for a in get_args(hint) if isinstance(a, OptionInfo | ArgumentInfo)]
            if not about:
                continue
            flags = [about[0].default, *(about[0].param_decls or ())]  # typer takes the first so
            flags = [flag for flag in flags if isinstance(flag, str) and flag.startswith("--")]
            shown = [*flags, f"--{name.replace('_', '-')}"][0]
            if isinstance(about[0], ArgumentInfo):
                shown, places = f"#{places}", places + 1
            required = signature[name].default is inspect.Parameter.empty
            yield Option(words, shown, one_of(get_args(hint)[0]), required)


BUILT = get_command(app)  # once, as this takes longer than most of the calls


def execute(line: list[str]) -> tuple[int, str]:
    """Run `rkd` in the current folder; its exit code and all that it printed."""
    said = io.StringIO()
    handlers = logging.root.handlers
    signals = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    logging.root.handlers = []
    try:
        with (
            mock.patch("retrieval_kd.cli.app.app", BUILT),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            main(line)
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    finally:
        logging.root.handlers = handlers
        for number, handler in signals.items():
            signal.signal(number, handler)
    raise AssertionError("rkd did not exit")


def write_world(folder: Path, models: dict[str, Path], collection: Path) -> dict[str, str]:
    """Write what the calls read, and junk; returns name → path. `collection` is copied."""
    import shutil

    from retrieval_kd.evaluation.report.data import ReportData
    from retrieval_kd.models.load import load_language_model
    from retrieval_kd.models.lora import Lora, add_adapters
    from retrieval_kd.students.make import make_student

    at = {name: folder / name for name in ("multi", "adapter", "text", "empty", "folder", "report")}
    at |= {name: folder / name for name in ("loop", "dangling", "socket", "locked", "unreadable")}
    at |= {
        name: folder / f"{name}.yaml" for name in ("suite", "config", "yaml", "list", "index_spec")
    }
    for name, model in (models | {"collection": collection}).items():
        at[name] = folder / "data" / "tiny" if name == "collection" else folder / name
        shutil.copytree(model, at[name])
    at["data"] = folder / "data"
    base, _ = load_language_model(str(at["decoder"]))
    lora = Lora(rank=2, targets=["q_proj"])
    add_adapters(base, lora, 0.0, str(at["decoder"]), None).save_pretrained(str(at["adapter"]))
    make_student(str(at["encoder"]), "multi_function", dimensions=8).save(str(at["multi"]))
    at["text"].write_text("no more than words\n")
    at["empty"].touch()
    at["binary"] = folder / "binary"
    at["binary"].write_bytes(bytes(range(256)) * 9)
    at["yaml"].write_text("a: 1\n")
    at["list"].write_text("- a\n")
    at["index_spec"].write_text("factory: Flat\n")
    at["report"].mkdir()
    (at["report"] / "report.json").write_text(json.dumps(ReportData("Tiny").to_json()))
    at["suite"].write_text("name: A\nmeasures: [ndcg@10]\ncollections: {tiny: {split: dev}}\n")
    settings: dict[str, Any] = {
        "name": "A",
        "collection": str(at["collection"]),
        "out": "out",
        "encoder": str(at["encoder"]),
    }
    settings["splits"] = {"dev": "dev"}
    settings["teacher"] = {"fuse_with": ["bm25"]}
    settings["student"] = {"base": str(at["encoder"]), "max_length": 48}
    settings |= {"students": {name: {"objective": "kl"} for name in ("distilled", "labels")}}
    at["config"].write_text(yaml.safe_dump(settings))
    at["queries"] = folder / "queries.tsv"
    at["queries"].write_text("one\tsparrow wing\n")
    at["documents"], at["ids"] = folder / "documents.jsonl", folder / "ids"
    at["documents"].write_text('{"_id": "birds1", "text": "sparrow"}\n')
    at["ids"].write_text("birds2\nnobody\n")
    at["vectors"] = folder / "vectors.npy"
    np.save(at["vectors"], np.eye(2, 32, dtype=np.float32))
    at["qrels"] = at["collection"] / "qrels" / "test.tsv"
    at["scores"] = folder / "published.tsv"
    at["scores"].write_text("query_id\tdocument_id\tscore\nq-birds0\tbirds1\t2.5\n")
    at["orders"] = folder / "orders.jsonl"
    hits = [{"docid": "birds1"}, {"docid": "birds2"}]
    order = {"query_id": "q-birds0", "hits": hits, "response": "[2] > [1]"}
    at["orders"].write_text(json.dumps(order) + "\n")
    at["folder"].mkdir()
    at["locked"].mkdir()
    at["unreadable"].touch()
    for name in ("run", "train_run", "other_run"):
        at[name] = folder / f"{name}.trec"
    for name in ("result", "other_result"):
        at[name] = folder / f"{name}.json"
    at |= {"store": folder / "store", "index": folder / "index"}
    world = {name: str(path) for name, path in at.items()}
    for line in MAKE:
        code, said = execute([word.format(**world) for word in line.split()])
        assert code == 0, said
    return world


def add_special(world: dict[str, str]) -> None:
    """Add what cannot be copied: links, a socket, what the user may not read or write."""
    os.symlink(world["loop"], world["loop"])
    os.symlink("no/such/thing", world["dangling"])
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(Path(world["socket"]).parent)  # an address has 107 characters at most
        made.bind("socket")
        os.chdir(here)
    os.chmod(world["locked"], 0o500)
    os.chmod(world["unreadable"], 0)


MAKE = [
    "retrieve --collection={collection} --depth=3 --out={run}",
    "retrieve --collection={collection} --depth=3 --split=train --out={train_run}",
    "retrieve --collection={collection} --depth=3 --with={encoder} --out={other_run}",
    "score --collection={collection} --candidates={train_run} --teacher=bm25 --store={store}",
    "score --collection={collection} --candidates={run} --teacher=bm25 --store={store}",
    "index --collection={collection} --model={encoder} --spec={index_spec} --out={index}",
    "evaluate --collection={collection} --run={run} --json={result}",
    "evaluate --collection={collection} --run={other_run} --json={other_result}",
]
DATA = {"--collection": "{collection}"}
INDEX: dict[str, str | bool | list[str]] = {"--index": "{index}"}
TRAIN = {**DATA, "--steps": "1", "--set": ["batch_queries=2", "slate_size=2"], "--out": "o"}
STORED = {**TRAIN, "--store": "{store}", "--teacher": "bm25", "--weight": "1"}
STUDENT = {**STORED, "--student": "{encoder}", "--max-tokens": "8"}
FIT = {**TRAIN, "--base": "{cross}", "--candidates": "{train_run}"}
LORA = {"--base": "yesno:{decoder}", "--lora": "2", "--lora-alpha": "4.0", "--max-length": "9"}
SCORE = {**DATA, "--candidates": "{run}", "--store": "store"}
SERVER: dict[str, str | bool] = {
    **{"--server": "http://127.0.0.1:9/v1", "--retries": "0", "--timeout": "1", "--logprobs": "5"},
    **{"--tokenizer": "{decoder}", "--structured": True, "--concurrency": "1", "--max-cost": "1"},
    **{"--api": "chat", "--per-minute": "60", "--max-tokens": "1"},
    **{"--prompt-price": "1", "--answer-price": "1"},
}
WRITER = {
    name: value for name, value in SERVER.items() if name not in ("--logprobs", "--structured")
}
GENERATE = {**DATA, "--model": "{decoder}", "--store": "store", "--out": "o", "--documents": "1"}
DRAWN = {"--examples": "1", "--examples-split": "train", "--seed": "1", "--per-document": "1"}
DRAWN |= {"--against": "test", "--found-by": "bm25", "--round-trip": "3", "--query-tokens": "8"}
DRAWN |= {"--split": "written", "--write": "claims", "--passage-tokens": "9"}
# an address that no machine has: a call with other values that are right must not begin to serve
SERVE = {"--index": ["{index}"], "--host": "203.0.113.1", "--port": "8123", "--teacher": "bm25"}
SERVE |= {"--rerank": "3", "--concurrency": "2"}
COMBINE = {"--part": ["bm25", "{index}"], "--collection": "{collection}", "--out": "o"}
COMBINE |= {"--fusion": "ranks", "--candidates": "9", "--language": "english"}
OUT = {"--json": "o.json", "--latex": "o.tex", "--markdown": "o.md"}
CARD = {"--card": "{encoder}", "--card-system": "encoder"}
SUITE = {"--data": "{data}", "--out": "o", **OUT, "--report": "o.html"}
SPLITS = {"--train": "{collection}:train", "--eval": "{collection}:test"}
RUNS = {"--teacher": "{run}", "--student": "{other_run}", "--json": "o.json"}
FALSE_NEGATIVES = {"--scores": "{store}", "--scores-teacher": "bm25", "--train": "train"}
IMPORT = {"--store": "s", "--model": "m", **DATA}
COMPARE = {"--store": "{store}", "--reliability": "o.html", "--json": "o.json"}
CALLS = [
    Call(("retrieve",), [], {**DATA, "--out": "o.trec", "--depth": "2"}),
    Call(("index", "add"), [], {**INDEX, "--documents": "{documents}", "--model": "{encoder}"}),
    Call(("index", "delete"), ["birds1"], {**INDEX, "--ids-from": "{ids}", "--missing": "skip"}),
    Call(("index", "compact"), [], INDEX),
    Call(("index", "combine"), [], {**COMBINE, "--weights": "equal"}),
    Call(
        ("index", "combine"),
        [],
        {**COMBINE, "--split": "test", "--allow-test": True},
        2,  # too few queries to choose by
    ),
    Call(("index", "verify"), [], INDEX),
    Call(
        ("index", "vectors"),
        [],
        {
            "--vectors": "{vectors}",
            "--ids": "{ids}",
            "--model": "{encoder}",
            "--spec": "{index_spec}",
            "--out": "o",
        },
    ),
    Call(
        ("index", "tune"),
        [],
        {
            **DATA,
            "--model": "{encoder}",
            "--out": "o.yaml",
            "--recall": "0.5",
            "--max-bytes": "9",
            "--max-ms": "9",
            "--queries": "{queries}",
            "--factory": ["Flat"],
            "--picture": "o.svg",
            "--json": "o.json",
        },
        2,  # too few queries to choose by
    ),
    Call(
        ("index", "tune"),
        [],
        {
            **DATA,
            "--model": "{encoder}",
            "--out": "o.yaml",
            "--ndcg-loss": "0.5",
            "--split": "dev",
            "--max-length": "32",
        },
        2,  # too few queries to choose by
    ),
    Call(
        ("index", "build"),
        [],
        {**DATA, "--model": "{encoder}", "--spec": "{index_spec}", "--out": "o"},
    ),
    Call(("search",), ["sparrow wing"], {"--index": "{index}"}),
    Call(("search",), [], {"--index": "{index}", "--queries": "{queries}", "--out": "o.trec"}),
    Call(("serve",), [], SERVE, 2),
    Call(("lucene",), ["t"], {"--index": "i", "--out": "o.trec", "--qrels": "q.tsv"}, 2),
    Call(("score",), [], {**SCORE, "--teacher": "bm25"}),
    Call(("score",), [], {**SCORE, "--teacher": "yesno:m", **SERVER}, 2),
    Call(("generate",), [], {**GENERATE, **DRAWN}, 1),  # random weights write no query
    Call(("generate",), [], {**GENERATE, **WRITER}, 2),
    Call(("fit-teacher",), [], FIT),
    Call(("fit-teacher",), [], {**STORED, **LORA, "--objective": "kl"}),
    Call(("merge",), ["{adapter}"], {"--out": "o"}),
    Call(("merge",), ["{encoder}", "{encoder}"], {"--out": "o", "--share": "0.7,0.3"}),
    Call(("train",), [], {**STUDENT, "--kind": "static"}),
    Call(("train",), [], STUDENT),
    Call(("parts",), ["{multi}", "o"]),
    Call(
        ("evaluate",), [], {**DATA, "--run": ["{run}", "{other_run}"], **OUT, "--report": "o.html"}
    ),
    Call(("evaluate",), [], {"--qrels": "{qrels}", "--run": "{run}"}),
    Call(("evaluate",), [], {**DATA, "--with": ["{encoder}", "bm25"], **CARD}),
    Call(("suite",), ["{suite}"], SUITE),
    Call(("suite",), ["{suite}"], {**SUITE, "--with": "{encoder}", **CARD}),
    Call(("compare",), ["{result}", "{other_result}"], OUT),
    Call(("audit",), [], {**SPLITS, "--run": "{run}", "--json": "o.json"}),
    Call(("audit",), [], {**SPLITS, "--results": "{result}"}),
    Call(("diagnose",), [], {**DATA, **RUNS}),
    Call(("diagnose",), [], {**DATA, **RUNS, **FALSE_NEGATIVES}),
    Call(("methods",), ["margin_mse"]),
    Call(("run",), ["{config}", "seeds=[0]"], {"--dry-run": True}),
    Call(("plan",), ["{config}", "seeds=[0]"], {"--gpu": ["L4", "A100"], "--price-per-hour": "1"}),
    Call(("report",), ["{report}"], {"--out": "o.html"}),
    Call(("scores", "inspect"), ["{store}"]),
    Call(("scores", "export"), ["{store}"], {"--out": "o.tsv"}),
    Call(("scores", "import"), ["{scores}"], IMPORT),
    Call(("scores", "import-permutations"), ["{orders}"], IMPORT),
    Call(("scores", "verify"), ["{store}"]),
    Call(("teach", "compare"), [], {**DATA, **COMPARE}),
]
