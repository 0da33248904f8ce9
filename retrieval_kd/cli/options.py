"""Options that several commands share, and options that have the bounds of a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from retrieval_kd import schema
from retrieval_kd.data.numerals import WHOLE, finite_number, whole_number
from retrieval_kd.errors import InputError
from retrieval_kd.files import check_writable
from retrieval_kd.progress import say

FILES, FOLDERS = "retrieval_kd.files", "retrieval_kd.folders"  # notes of outputs, in a context
MOST_FOLDERS = 250  # that a path may go down; pathlib makes them by recursion


def bounded(kind: Any, help: str, *flags: str, **settings: Any) -> Any:
    """An option whose value must be of a type with bounds, such as `schema.Tokens`."""

    def check(value: Any) -> Any:
        try:
            if value is not None:
                schema.check_type(kind, value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        return value

    types = set(schema.types_in(kind)) - {type(None)}
    if types and types <= {int, float}:
        settings["parser"] = _whole if types == {int} else _decimal
    return typer.Option(*flags, help=help, callback=check, **settings)


def _whole(value: Any) -> int:
    """Read a whole number in plain digits: `1_0` and Arabic digits are none."""
    number = whole_number(value)
    if number is None and WHOLE.fullmatch(str(value)):
        schema.check_size(-schema.LARGEST - 1)  # says the bounds
    if number is None:
        raise ValueError(f"{value!r} is not a valid integer")
    return number


def _decimal(value: Any) -> float:
    number = finite_number(value)
    if number is None:
        raise ValueError(f"{value!r} is not a valid number, or not a finite one")
    return number


def setting(
    part: type[BaseModel], name: str, *flags: str, help: str | None = None, **settings: Any
) -> Any:
    """An option with the bounds and the description of a setting."""
    field = part.model_fields[name]
    kind = Annotated[field.annotation, field]  # type: ignore[name-defined]
    return bounded(kind, help or field.description or "", *flags, **settings)


def refuse_unused(context: typer.Context, names: Iterable[str], what: str, needs: str) -> None:
    """Refuse options that say nothing without another one: none is left out without a word."""
    for name in names:
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE":
            flag = f"--{name.strip('_').replace('_', '-')}"
            remedy = f"add {needs}, or leave {flag} out"
            raise InputError(f"{flag} is {what}", remedy=remedy)


def check_parent(path: Path) -> None:
    """Refuse a path in what is no folder, or may not be written, or too deep for pathlib."""
    deep = len(path.parts) > MOST_FOLDERS
    above = next((folder for folder in path.absolute().parents if os.path.lexists(folder)), path)
    if deep or not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise InputError("no file can be written there: " + ("too deep" if deep else f"{above}"),
                         file=path, remedy="name a file in another folder")  # fmt: skip


def out_file(*names: str, help: str) -> Any:
    """An option for a file to write; one that cannot be is refused before anything is computed."""
    return typer.Option(*names, callback=_writable, help=help)


def _writable(context: typer.Context, param: typer.CallbackParam, path: Path | None) -> Path | None:
    if path is not None:
        check_parent(check_writable(path))
        context.meta.setdefault(FILES, {})[param.name] = path
    return path


def out_folder(help: str, *, of: Any = typer.Option, replaced: bool = True) -> Any:
    """An option for a folder to write; `replaced` says that what is in it is lost."""

    def note(context: typer.Context, param: typer.CallbackParam, path: Path | None) -> Path | None:
        if path is not None:
            context.meta.setdefault(FOLDERS if replaced else FILES, {})[param.name] = path
        return path

    return of(callback=note, help=help)


def say_replaced(out: Path) -> Callable[[dict[str, Any]], None]:
    """Return a function that says which index in `out` is replaced, from its manifest."""
    return lambda old: say(
        f"{out}: replaces the index of {old.get('count', 0):,} documents by {old.get('model')}"
    )


def one_model(models: list[str] | None) -> str | None:
    """Return the one MODEL of an index, checked that it exists."""
    from retrieval_kd.models.names import resolve_model

    if models and len(models) > 1:
        raise InputError("--model is given several times", remedy="an index has one model")
    for model in models or ():
        resolve_model(model)
    return models[0] if models else None


def part_models(models: list[str] | None) -> dict[str, str]:
    """Read PART=MODEL of a hybrid index; each model must exist."""
    from retrieval_kd.models.names import resolve_model

    named = {}
    for text in models or ():
        name, equals, model = text.partition("=")
        if not equals:
            remedy = "a hybrid index has several: write PART=MODEL"
            raise InputError(f"--model {text} names no part", remedy=remedy)
        resolve_model(model)
        named[name] = model
    return named


CollectionOption = Annotated[
    str,
    typer.Option("--collection", help="BEIR folder or zip, ir_datasets ID, or python-api[:FOLDER]"),
]
Split = Annotated[str, typer.Option(help="split whose judged queries are used")]
Length = Annotated[int | None, bounded(schema.Tokens, "tokens per text; default: the model's own")]
Depth = Annotated[int, bounded(schema.Depth, "documents per query")]
RunOut = Annotated[Path, out_file(help="TREC run file to write; .gz compresses")]
KeepSelf = Annotated[
    bool, typer.Option("--keep-self", help="keep a document whose ID is the query's")
]
CountSelf = Annotated[
    bool, typer.Option("--keep-self", help="count a document whose ID is the query's")
]
