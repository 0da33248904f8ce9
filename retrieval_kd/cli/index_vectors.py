"""The command `rkd index vectors`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import Length, out_folder, say_replaced
from retrieval_kd.progress import say


def vectors(
    file: Annotated[
        Path,
        typer.Option("--vectors", help=".npy file (documents, dimensions), float16 or float32"),
    ],
    model: Annotated[str, typer.Option(help="MODEL that made the vectors; it encodes queries")],
    out: Annotated[Path, out_folder("folder for the index")],
    ids: Annotated[
        Path | None,
        typer.Option(help="one document ID a line, in the order of the rows; default: 0, 1, …"),
    ] = None,
    spec: Annotated[Path, typer.Option(help="index specification, see indexes/*.yaml")] = Path(
        "indexes/flat.yaml"
    ),
    max_length: Length = None,
) -> None:
    """Build an index of vectors that you have: rkd index vectors --vectors v.npy --ids ids.txt …

    The file is read from disk as needed and may be larger than memory. An index of cells (IVF) of
    more than a million documents is built in parts: killed, it continues after the last one.
    Search results have document IDs and no texts.
    """
    from retrieval_kd.indexing.from_vectors import index_vectors
    from retrieval_kd.indexing.spec import load_spec

    built = index_vectors(
        file,
        model,
        load_spec(spec),
        out,
        ids=ids,
        max_length=max_length,
        replacing=say_replaced(out),
    )
    say(f"{out}: {len(built):,} documents, {built.manifest['bytes'] / 2**20:.1f} MiB")
