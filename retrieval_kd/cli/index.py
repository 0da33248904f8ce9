"""The commands `rkd index` and `rkd index add|delete|compact|verify|combine|tune|vectors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from retrieval_kd.cli.combine import combine
from retrieval_kd.cli.index_vectors import vectors
from retrieval_kd.cli.options import (
    CollectionOption,
    Length,
    one_model,
    out_folder,
    part_models,
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

    hybrid = _is_hybrid(index)
    if not documents.is_file():
        raise InputError("no such file of documents", file=documents, remedy="check the path")
    reading = Reading()
    if hybrid:
        models = part_models(model)
        from retrieval_kd.retrieval.change_hybrid import add_to_hybrid

        change = add_to_hybrid(index, read_documents(documents, reading), models=models)
    else:
        only = one_model(model)
        from retrieval_kd.indexing.change import add_documents

        change = add_documents(index, read_documents(documents, reading), model_spec=only)
    reading.drops.warn(str(documents))
    _report(index, f"{change.added:,} documents added, {change.replaced:,} replaced", change)


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

    hybrid = _is_hybrid(index)
    wanted, reading = list(ids or []), Reading()
    if ids_from is not None:
        wanted += [text.strip() for _, text in file_lines(ids_from, reading)]
    if not wanted:
        raise InputError("no document ID to delete", remedy="name IDs, or give --ids-from FILE")
    if hybrid:
        from retrieval_kd.retrieval.change_hybrid import delete_from_hybrid

        change = delete_from_hybrid(index, wanted, missing=missing)
    else:
        from retrieval_kd.indexing.change import delete_documents

        change = delete_documents(index, wanted, missing=missing)
    reading.drops.warn(str(ids_from))
    unknown = f", {change.missing:,} IDs were not there" if change.missing else ""
    _report(index, f"{change.deleted:,} documents deleted{unknown}", change)


@index_app.command()
def compact(index: Folder) -> None:
    """Write an index anew, with what was added in one piece and without what was deleted."""
    hybrid = _is_hybrid(index)
    if hybrid:
        from retrieval_kd.retrieval.change_hybrid import compact_hybrid

        change = compact_hybrid(index)
    else:
        from retrieval_kd.indexing.change import compact_index

        change = compact_index(index)
    _report(index, "compacted", change)


@index_app.command()
def verify(index: Folder) -> None:
    """Read every byte of an index and compare it with its manifest. Exits 1 on a problem."""
    hybrid = _is_hybrid(index)
    if hybrid:
        from retrieval_kd.retrieval.hybrid import verify_hybrid

        problems = verify_hybrid(index)
    else:
        from retrieval_kd.indexing.verify import verify_index

        problems = verify_index(index)
    for problem in problems:
        say(problem)
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    say(f"{index}: {count if problems else 'all is well'}")
    if problems:
        raise typer.Exit(1)


def _is_hybrid(index: Path) -> bool:
    """Whether an index is one of several; what is no index is refused before torch is loaded."""
    from retrieval_kd.retrieval.hybrid_folder import is_hybrid

    if not (index / "manifest.json").is_file():
        raise InputError("no finished index here", file=index, remedy="build it with rkd index")
    return is_hybrid(index)


def _report(index: Path, what: str, change: Change) -> None:
    say(f"{index}: {what}; {change.documents:,} documents in the index")
    if change.loose >= LOOSE:
        say(f"{change.loose:.0%} of its rows are deleted or apart from the rest: rkd index compact "
            "makes it smaller and faster to open")  # fmt: skip
