"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval_kd.files import check_writable


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
Length = Annotated[int | None, typer.Option(help="tokens per text; default: the model's own")]
Depth = Annotated[int, typer.Option(min=1, help="documents per query")]
RunOut = Annotated[Path, out_file(help="TREC run file to write; .gz compresses")]
KeepSelf = Annotated[
    bool, typer.Option("--keep-self", help="keep a document whose ID is the query's")
]
CountSelf = Annotated[
    bool, typer.Option("--keep-self", help="count a document whose ID is the query's")
]
