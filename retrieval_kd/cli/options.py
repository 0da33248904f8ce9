"""Options that several commands share, and options that have the bounds of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from retrieval_kd import schema
from retrieval_kd.files import check_writable


def bounded(kind: Any, help: str, *flags: str, **settings: Any) -> Any:
    """An option whose value must be of a type with bounds, such as `schema.Tokens`."""

    def check(value: Any) -> Any:
        try:
            if value is not None:
                schema.check_type(kind, value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        return value

    return typer.Option(*flags, help=help, callback=check, **settings)


def setting(
    part: type[BaseModel], name: str, *flags: str, help: str | None = None, **settings: Any
) -> Any:
    """An option with the bounds and the description of a setting."""
    field = part.model_fields[name]
    kind = Annotated[field.annotation, field]  # type: ignore[name-defined]
    return bounded(kind, help or field.description or "", *flags, **settings)


def out_file(*names: str, help: str) -> Any:
    """An option for a file to write; one that cannot be is refused before anything is computed."""
    return typer.Option(*names, callback=_writable, help=help)


def _writable(path: Path | None) -> Path | None:
    if path is not None:
        check_writable(path)
    return path


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
