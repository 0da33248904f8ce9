"""The commands `rkd index` and `rkd index add|delete|compact|verify|combine|tune|vectors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from retrieval_kd.cli.combine import combine
from retrieval_kd.cli.index_folder import index_in
from retrieval_kd.cli.index_vectors import vectors
from retrieval_kd.cli.options import (
    CollectionOption,
    Length,
    out_folder,
    say_replaced,
)
from retrieval_kd.cli.tune_index import tune
from retrieval_kd.errors import InputError
from retrieval_kd.progress import say

if TYPE_CHECKING:
    from retrieval_kd.indexing.change import Change

LOOSE = 0.2  # share of rows that are deleted or in segments, from which on compacting is advised


class IndexCommands(TyperGroup):
    """The subcommands of `rkd index`; without the name of one it builds."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] == "--help" or not args[0].startswith("-"))
        return super().parse_args(ctx, args if named else ["build", *args])


index_app = typer.Typer(name="index", cls=IndexCommands)
index_app.command()(tune)
index_app.command()(vectors)
index_app.command()(combine)

Folder = Annotated[Path, typer.Option("--index", help="folder made by `rkd index`, or by combine")]


@index_app.callback()
def index() -> None:
    """Build an index (`rkd index --collection …`), or change one: add, delete, compact, verify.

    `rkd index tune` chooses a specification, `rkd index vectors` builds from vectors that you have,
    `rkd index combine` makes one index of several and BM25. `rkd index build --help` lists what
    building takes.
    """


@index_app.command()
def build(
    collection: CollectionOption,
    model: Annotated[str, typer.Option(help="MODEL that encodes documents and queries")],
    out: Annotated[Path, out_folder("folder for the index")],
    spec: Annotated[Path, typer.Option(help="index specification, see indexes/*.yaml")] = Path(
        "indexes/flat.yaml"
    ),
    max_length: Length = None,
) -> None:
    """Encode a collection and build an index, which records its model and document IDs.

    An existing index with another model, documents or settings is replaced, with a message. This
    is what `rkd index` does without the name of a command.
    """
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.indexing.build import build_index
    from retrieval_kd.indexing.spec import load_spec

    built = build_index(
        open_collection(collection),
        model,
        load_spec(spec),
        out,
        max_length=max_length,
        replacing=say_replaced(out),
    )
    say(f"{out}: {len(built):,} documents, {built.manifest['bytes'] / 2**20:.1f} MiB")


@index_app.command()
def add(
    index: Folder,
    documents: Annotated[
        Path, typer.Option(help="JSONL ({_id, text, title}) of documents, plain or .gz")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="the index's MODEL, if it was moved; of a hybrid's part: PART=MODEL"),
    ] = None,
) -> None:
    """Add documents to an index; one whose ID is in the index replaces what was there."""
    from retrieval_kd.data.beir import read_documents
    from retrieval_kd.data.rows import Reading

    folder = index_in(index)
    if not documents.is_file():
        raise InputError("no such file of documents", file=documents, remedy="check the path")
    reading = Reading()
    change = folder.add(read_documents(documents, reading), model)
    reading.drops.warn(str(documents))
    _report(index, f"{_many(change.added, 'document')} added, {change.replaced:,} replaced", change)


@index_app.command()
def delete(
    index: Folder,
    ids: Annotated[list[str] | None, typer.Argument(help="document IDs", metavar="ID…")] = None,
    ids_from: Annotated[Path | None, typer.Option(help="file with one document ID a line")] = None,
    missing: Annotated[
        Literal["error", "skip"],
        typer.Option(help="what to do about IDs that are not in the index"),
    ] = "error",
) -> None:
    """Delete documents from an index by ID."""
    from retrieval_kd.data.rows import Reading
    from retrieval_kd.data.sources import file_lines

    folder = index_in(index)
    wanted, reading = list(ids or []), Reading()
    if ids_from is not None:
        wanted += [text.strip() for _, text in file_lines(ids_from, reading)]
    if not wanted:
        raise InputError("no document ID to delete", remedy="name IDs, or give --ids-from FILE")
    change = folder.delete(wanted, missing)
    reading.drops.warn(str(ids_from))
    unknown = f", {_many(change.missing, 'ID')} not there" if change.missing else ""
    _report(index, f"{_many(change.deleted, 'document')} deleted{unknown}", change)


@index_app.command()
def compact(index: Folder) -> None:
    """Write an index anew, with what was added in one piece and without what was deleted."""
    _report(index, "compacted", index_in(index).compact())


@index_app.command()
def verify(index: Folder) -> None:
    """Read every byte of an index and compare it with its manifest. Exits 1 on a problem."""
    problems = index_in(index).verify()
    for problem in problems:
        say(problem)
    say(f"{index}: {_many(len(problems), 'problem') if problems else 'all is well'}")
    if problems:
        raise typer.Exit(1)


def _report(index: Path, what: str, change: Change) -> None:
    say(f"{index}: {what}; {_many(change.documents, 'document')} in the index")
    if change.loose >= LOOSE:
        say(f"{change.loose:.0%} of its rows are deleted or apart from the rest: rkd index compact "
            "makes it smaller and faster to open")  # fmt: skip


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
