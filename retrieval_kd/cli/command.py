"""What holds of every command line: no option twice, no output over an input, `~` is the home."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from retrieval_kd.cli.options import FILES, FOLDERS
from retrieval_kd.cli.paths import COLLECTION, READ, is_read_from, is_same, places
from retrieval_kd.errors import InputError
from retrieval_kd.schema import expanded

WORDS = ("query",)  # parameters that are texts, and never paths
# parameters with text that may name a file or a folder to read
NAMES = ("collection", "train", "eval_", "with_", "model", "models", "student", "base", "teacher",
         "tokenizer", "name", "part")  # fmt: skip


class Command(TyperCommand):
    """A command of `rkd`."""

    def make_parser(self, ctx: Any) -> Any:
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], list[Any]]:
            values, rest, order = parse(args=args)
            if not any(param.name == "help" for param in order):
                _refuse_repeated(order)
            found = {k: v if k in WORDS else expanded(v) for k, v in values.items()}
            return found, rest, order

        parser.parse_args = parse_args
        return parser

    def invoke(self, ctx: Any) -> Any:
        _refuse_overwriting(ctx)
        return super().invoke(ctx)


def _refuse_repeated(order: list[Any]) -> None:
    """Refuse what is given twice and has one value: the first would be lost without a word."""
    for param, count in Counter(order).items():
        if count > 1 and not param.multiple:
            raise InputError(
                f"{_flag(param)} is given {count} times", remedy="give it once: it has one value"
            )


def _refuse_overwriting(ctx: Any) -> None:
    """Refuse an output that is an input, in one, or another output."""
    params = {param.name: param for param in ctx.command.params}
    files: dict[str, Path] = ctx.meta.get(FILES, {})
    folders: dict[str, Path] = ctx.meta.get(FOLDERS, {})
    read = [
        (name, place)
        for name in params
        if name not in (*files, *folders)
        for place in _read(name, ctx.params.get(name))
    ]
    outputs = list((files | folders).items())
    for number, (out, path) in enumerate(outputs):
        for name, place in read:
            names = COLLECTION if name == "collection" else READ
            inside = is_read_from(path, place, names) if out in files else _holds(path, place)
            if is_same(path, place) or inside:
                told = f"{_flag(params[out])} would overwrite what {_flag(params[name])} reads"
                raise InputError(told, file=path, remedy="name another place to write to")
        for other, place in outputs[:number]:
            if is_same(path, place):
                told = f"{_flag(params[out])} would overwrite {_flag(params[other])}"
                raise InputError(told, file=path, remedy="name a file or folder for each")


def _read(name: str, value: Any) -> list[Path]:
    """The files and folders that the value of a parameter names."""
    values = value if isinstance(value, list | tuple) else [value]
    paths = [one for one in values if isinstance(one, Path)]
    named = [one for one in values if isinstance(one, str) and name in NAMES]
    words = [word for one in named for word in {one, one.partition("=")[2]}]  # NAME=FOLDER too
    found = [place for word in words for place in places(word)]
    return paths + [place for place in found if name != "name" or place.is_file()]  # of a suite


def _holds(folder: Path, place: Path) -> bool:
    """Whether an output folder, which is replaced as a whole, has an input in it."""
    inside, above = (Path(os.path.realpath(path)) for path in (place, folder))
    return os.path.exists(inside) and inside.is_relative_to(above)


def _flag(param: Any) -> str:
    """How a parameter is written: `--out`, or `MODEL` for an argument."""
    flag = str(param.opts[0])
    return flag if flag.startswith("-") else str(param.metavar or param.name).upper()
