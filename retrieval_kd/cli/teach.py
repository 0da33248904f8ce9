"""The subcommands of `rkd teach`, for choosing a teacher. `app.py` mounts them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from retrieval_kd.cli.options import CollectionOption, Split, bounded, out_file
from retrieval_kd.schema import Count, Price

teach_app = typer.Typer(
    name="teach", help="Compare teachers before paying for one.", no_args_is_help=True
)


KEPT = 5  # clashes of each two teachers in the JSON, at least


@teach_app.callback()
def teach() -> None:
    """Compare teachers before paying for one."""


@teach_app.command("compare")
def compare_command(
    collection: CollectionOption,
    store: Annotated[Path, typer.Option(help="score store with the teachers' answers")],
    split: Split = "test",
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="a teacher's name, short or in full, or its fingerprint; repeat; default: all in "
            "the store"
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="TREC run file: compare on these pairs only, and evaluate this run too"),
    ] = None,
    aggregate: Annotated[
        list[str] | None,
        typer.Option(
            help="how answers become scores; for pairs: win_rate, copeland, bradley_terry; for "
            "lists: reciprocal_rank, borda, discounted_rank, plackett_luce"
        ),
    ] = None,
    calibrate: Annotated[
        Literal["platt", "isotonic", "temperature"],
        typer.Option(help="how scores are mapped to log-odds of relevance, cross-fitted"),
    ] = "platt",
    prompt_price: Annotated[
        float | None,
        bounded(Price, "price per million tokens read; default: as recorded"),
    ] = None,
    answer_price: Annotated[
        float | None, bounded(Price, "price per million tokens written")
    ] = None,
    hour_price: Annotated[
        float | None, bounded(Price, "price per hour of this machine, for local teachers")
    ] = None,
    worst: Annotated[
        int,
        bounded(Count, "how many of the strongest disagreements to show"),
    ] = 3,
    reliability: Annotated[
        Path | None, out_file(help="write reliability diagrams to this HTML page")
    ] = None,
    json: Annotated[Path | None, out_file("--json", help="write everything here")] = None,
) -> None:
    """Compare teachers: quality, agreement, order bias, failures, cost per 1,000 queries.

    Reads what `rkd score` stored; runs no teacher.
    """
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.data.runs import check_run, read_run
    from retrieval_kd.files import write_json
    from retrieval_kd.progress import say
    from retrieval_kd.store.scores import ScoreStore
    from retrieval_kd.teachers.comparing.conclude import check_aggregations

    opened_store = ScoreStore(store)
    keys = [opened_store.resolve(name) for name in teacher or []] or opened_store.teachers()
    check_aggregations(keys, aggregate or [])
    opened = open_collection(collection)
    run = None if candidates is None else read_run(candidates)
    if run is not None:
        check_run(run, opened)
    # These imports take seconds, so mistakes in names are reported before them.
    from retrieval_kd.evaluation.teachers.compare import Prices, compare_teachers
    from retrieval_kd.evaluation.teachers.show import print_comparison, write_reliability

    record = compare_teachers(
        opened,
        split,
        opened_store,
        teacher or [],
        candidates=run,
        aggregate=aggregate or [],
        prices=Prices(prompt_price, answer_price, hour_price),
        method=calibrate,
        worst=max(worst, KEPT),
    )
    print_comparison(record, worst=worst)
    if reliability is not None:
        write_reliability(record, reliability)
        say(reliability)
    if json is not None:
        source = {"spec": collection, "split": split, "texts_digest": opened.digest()}
        write_json(json, {**record, "collection": source, "store": str(store)})
        say(json)
