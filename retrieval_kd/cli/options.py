"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CollectionOption = Annotated[
    str,
    typer.Option("--collection", help="BEIR folder or zip, ir_datasets ID, or python-api[:FOLDER]"),
]
Split = Annotated[str, typer.Option(help="split whose judged queries are used")]
Length = Annotated[int | None, typer.Option(help="tokens per text; default: the model's own")]
Depth = Annotated[int, typer.Option(min=1, help="documents per query")]
RunOut = Annotated[Path, typer.Option(help="TREC run file to write; .gz compresses")]
KeepSelf = Annotated[
    bool, typer.Option("--keep-self", help="keep a document whose ID is the query's")
]
CountSelf = Annotated[
    bool, typer.Option("--keep-self", help="count a document whose ID is the query's")
]
