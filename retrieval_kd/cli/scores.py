"""The commands `rkd scores inspect|export|import|import-permutations|verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import out_file
from retrieval_kd.progress import Screen, say
from retrieval_kd.store.export import export_scores
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.summary import summarise, summary_tables

scores_app = typer.Typer(
    name="scores", help="Inspect, export, import and check stored scores.", no_args_is_help=True
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
    """Show every teacher of a store, with statistics of its scores or answers."""
    scores, answers = summarise(ScoreStore(store))
    if as_json:
        print(json.dumps([*map(asdict, scores), *map(asdict, answers)], indent=2))
    elif scores or answers:
        for table in summary_tables(scores, answers):
            width = max(Screen().width, 26 * len(table.columns) - 6)
            # Names may contain :words: that look like an emoji.
            Screen(width=width, emoji=False, markup=False).print(table)
    else:
        say(f"{store}: no scores yet")


@scores_app.command("export")
def export_command(
    store: StoreArgument,
    out: Annotated[Path, out_file(help="A .tsv, .jsonl, .parquet or .trec file.")],
    teacher: TeacherOption = None,
) -> None:
    """Write a teacher's scores to a file that other tools read."""
    opened = ScoreStore(store)
    key = opened.resolve(teacher) if teacher else opened.only()
    rows = export_scores(opened, key, out)
    say(f"{out}: {rows:,} {'scores' if key.is_pointwise else 'answers'}")


@scores_app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="A file of published scores.", metavar="FILE")],
    store: Annotated[Path, typer.Option(help="The score store's folder.")],
    model: Annotated[str, typer.Option(help="The teacher's new name.")],
    collection: Annotated[
        str | None,
        typer.Option(help="The texts of the IDs; without it, training cannot use the scores."),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="The file's format, if it is not to be detected.")
    ] = None,
    allow_ranks: Annotated[
        bool, typer.Option("--allow-ranks", help="Accept the same scores for every query.")
    ] = False,
) -> None:
    """Import published teacher scores into a store; docs/scores.md lists the formats."""
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
    say(
        f"{file} ({imported.format}): {imported.stored:,} scores stored, "
        f"{imported.known:,} given twice or known before; teacher {imported.key.fingerprint}"
    )
    for line in imported.drops.summary():
        say(f"left out or corrected: {line}")
    if collection is None:
        say("stored by ID, texts unknown: import with --collection to train on them")


@scores_app.command("import-permutations")
def import_permutations_command(
    file: Annotated[Path, typer.Argument(help="A file of published orders.", metavar="FILE")],
    store: Annotated[Path, typer.Option(help="The score store's folder.")],
    model: Annotated[str, typer.Option("--model", "--teacher", help="The teacher's new name.")],
    collection: Annotated[str, typer.Option(help="The texts of the queries and passages.")],
) -> None:
    """Import published orders such as `[2] > [1]` (RankGPT, RankZephyr) as a listwise teacher."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.teachers.importers import import_permutations

    done = import_permutations(file, ScoreStore(store), model, open_collection(collection))
    say(
        f"{file}: {done.stored:,} orders stored ({done.repaired:,} incomplete), {done.known:,} "
        f"given twice or known before; teacher {done.key.fingerprint}"
    )
    if done.again:
        say(
            f"{done.again:,} queries have several lists: the last one counts, or all of them with "
            f"{model}?aggregate=borda"
        )
    for line in done.drops.summary():
        say(f"left out or corrected: {line}")


@scores_app.command("verify")
def verify_command(
    store: StoreArgument,
    teacher: TeacherOption = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Delete what killed writers left behind.")
    ] = False,
) -> None:
    """Check every shard: checksum, columns, finite scores, contradictions. Exits 1 on a problem."""
    opened = ScoreStore(store)
    problems = opened.verify(opened.resolve(teacher) if teacher else None)
    if clean:
        for path in opened.clean():
            say(f"removed {path}")
    for problem in problems[:MOST_PROBLEMS]:
        say(str(problem))
    if len(problems) > MOST_PROBLEMS:
        say(f"… and {len(problems) - MOST_PROBLEMS} more")
    say(f"{store}: {len(problems)} problems" if problems else f"{store}: all is well")
    if problems:
        raise typer.Exit(1)
