"""`rkd scores inspect|export|import|…|verify`: looking at a score store from the shell."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from retrieval_kd.store import verify as store_verify
from retrieval_kd.store.answer_summary import summarise_answers
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.summary import export_scores, summarise, tables

scores_app = typer.Typer(
    name="scores", help="Look into, export, import and check stored scores.", no_args_is_help=True
)
MOST_PROBLEMS = 50

StoreArgument = Annotated[Path, typer.Argument(help="The score store's folder.", metavar="DIR")]
TeacherOption = Annotated[
    str | None, typer.Option(help="A teacher's name, or the start of its fingerprint.")
]


@scores_app.command("inspect")
def inspect_command(
    store: StoreArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every teacher of a store: how much it was asked, and how its answers lie."""
    opened = ScoreStore(store)
    keys = opened.teachers()
    scores = [summarise(opened, key) for key in keys if key.gives_scores]
    answers = [
        summarise_answers(AnswerStore(opened.folder(key), key))
        for key in keys
        if not key.gives_scores
    ]
    if as_json:
        told = [*map(asdict, scores), *map(asdict, answers)]
        typer.echo(json.dumps(told, indent=2))
    elif keys:
        for table in tables(scores, answers):
            width = max(Console().width, 26 * len(table.columns) - 6)
            Console(width=width, emoji=False, markup=False).print(table)  # names are no :package:
    else:
        typer.echo(f"{store}: no scores yet")


@scores_app.command("export")
def export_command(
    store: StoreArgument,
    out: Annotated[Path, typer.Option(help="A .tsv, .jsonl, .parquet or .trec file.")],
    teacher: TeacherOption = None,
) -> None:
    """Write a teacher's scores to a file that other tools read."""
    opened = ScoreStore(store)
    rows = export_scores(opened, opened.resolve(teacher) if teacher else opened.only(), out)
    typer.echo(f"{out}: {rows:,} scores")


@scores_app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="A file of published scores.", metavar="FILE")],
    store: Annotated[Path, typer.Option(help="The score store's folder.")],
    model: Annotated[str, typer.Option(help="What to call the teacher.")],
    collection: Annotated[
        str | None,
        typer.Option(help="Whose texts the IDs are; without it, training cannot use the scores."),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="The file's shape, if it is not to be told from the file.")
    ] = None,
    allow_ranks: Annotated[
        bool, typer.Option("--allow-ranks", help="Accept the same scores for every query.")
    ] = False,
) -> None:
    """Read published teacher scores (see docs/scores.md for the shapes) into a store."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.teachers.importers import import_scores

    imported = import_scores(
        file,
        ScoreStore(store),
        model,
        collection=open_collection(collection) if collection else None,
        format=format,
        allow_ranks=allow_ranks,
    )
    typer.echo(
        f"{file} ({imported.format}): {imported.stored:,} scores stored, "
        f"{imported.known:,} given twice or known before; teacher {imported.key.fingerprint}"
    )
    for line in imported.drops.summary():
        typer.echo(f"left out or corrected: {line}")
    if collection is None:
        typer.echo("stored by ID, texts unknown: import with --collection to train on them")


@scores_app.command("import-permutations")
def import_permutations_command(
    file: Annotated[Path, typer.Argument(help="A file of published orders.", metavar="FILE")],
    store: Annotated[Path, typer.Option(help="The score store's folder.")],
    model: Annotated[str, typer.Option("--model", "--teacher", help="What to call the teacher.")],
    collection: Annotated[str, typer.Option(help="Whose texts the queries and passages are.")],
) -> None:
    """Read published orders such as `[2] > [1]` (RankGPT, RankZephyr) as a listwise teacher's."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.teachers.importers import import_permutations

    made = import_permutations(file, ScoreStore(store), model, open_collection(collection))
    typer.echo(
        f"{file}: {made.stored:,} orders stored ({made.repaired:,} incomplete), {made.known:,} "
        f"given twice or known before; teacher {made.key.fingerprint}"
    )
    if made.again:
        typer.echo(
            f"{made.again:,} queries have several lists: the last one counts, or all of them with "
            f"{model}?aggregate=borda"
        )
    for line in made.drops.summary():
        typer.echo(f"left out or corrected: {line}")


@scores_app.command("verify")
def verify_command(
    store: StoreArgument,
    teacher: TeacherOption = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove what killed writers left behind.")
    ] = False,
) -> None:
    """Check every shard: checksum, columns, finite scores, contradictions. Exits 1 on a problem."""
    opened = ScoreStore(store)
    problems = opened.verify(opened.resolve(teacher) if teacher else None)
    if clean:
        for folder in filter(Path.is_dir, store.glob("[!.]*")):
            for path in store_verify.clean(folder):
                typer.echo(f"removed {path}")
    for problem in problems[:MOST_PROBLEMS]:
        typer.echo(str(problem))
    if len(problems) > MOST_PROBLEMS:
        typer.echo(f"… and {len(problems) - MOST_PROBLEMS} more")
    typer.echo(f"{store}: {len(problems)} problems" if problems else f"{store}: all is well")
    if problems:
        raise typer.Exit(1)
