"""The subcommand `suite`: evaluate systems on many collections. `app.py` mounts it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.evaluate import (
    Baseline,
    Card,
    CardSystem,
    Condensed,
    Json,
    KeepSelf,
    Latex,
    Markdown,
    Report,
    Test,
)
from retrieval_kd.evaluation.outputs import Outputs

suite_app = typer.Typer()


@suite_app.command()
def suite(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SUITE", help="a suite in configs/suites, such as beir or local, or a YAML file"
        ),
    ],
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with", help="bm25 (the default), bm25-lucene, a MODEL, or A+B; repeat to compare"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="folder with BEIR folders and zips; default $RETRIEVAL_KD_DATA"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the run files; default runs/suites/SUITE")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="evaluate only these collections, separated by commas")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="let ir_datasets download missing collections")
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="documents to retrieve per query; default: as the suite says"),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="maximum tokens per text; default: the model's own")
    ] = None,
    measures: Annotated[
        str | None, typer.Option(help="measures, separated by commas; default: the suite's")
    ] = None,
    baseline: Baseline = None,
    test: Test = "t",
    condensed: Condensed = False,
    keep_self: KeepSelf = False,
    json: Json = None,
    report: Report = None,
    latex: Latex = None,
    markdown: Markdown = None,
    card: Card = None,
    card_system: CardSystem = None,
) -> None:
    """Evaluate systems on all collections of a suite, with quality, costs and paired tests.

    Finished work is kept: a second call retrieves only what is new.
    """
    from retrieval_kd.evaluation.suite.report import print_suite, render, result_grids, suite_record
    from retrieval_kd.evaluation.suite.run import evaluate_suite
    from retrieval_kd.evaluation.systems import system_names
    from retrieval_kd.progress import console

    outputs = Outputs(json, report, latex, markdown, card, card_system)
    systems = with_ or ["bm25"]
    outputs.check_card(system_names(systems))
    result = evaluate_suite(
        name,
        systems,
        data=data,
        out=out,
        only=only.split(",") if only else (),
        measures=measures,
        depth=depth,
        max_length=max_length,
        baseline=baseline,
        method=test,
        exclude_self=not keep_self,
        condensed=condensed,
        download=download,
        progress=lambda line: console.print(line, markup=False, highlight=False, emoji=False),
    )
    print_suite(result)
    outputs.write(
        suite_record(result),
        result_grids(result),
        page=lambda: render(result),
        evaluations={
            f"{collection}, {part.located.split}": part.evaluation
            for collection, part in result.collections.items()
        },
        systems=result.options.systems,
    )
