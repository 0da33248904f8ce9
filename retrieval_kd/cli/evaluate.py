"""The subcommands `evaluate`, `suite` and `compare`. `app.py` mounts them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from retrieval_kd.cli.options import CountSelf, Length, bounded, out_file, out_folder, refuse_unused
from retrieval_kd.evaluation.result_file import Outputs
from retrieval_kd.schema import Depth

evaluate_app = typer.Typer()

MEASURES = "ndcg@10,mrr@10,recall@100"
# options that `rkd evaluate` and `rkd suite` share
Measures = Annotated[str, typer.Option(help="measures, separated by commas; any that ranx has")]
Baseline = Annotated[str | None, typer.Option(help="compare every system with this one only")]
Test = Annotated[Literal["t", "randomisation"], typer.Option("--test", help="the paired test")]
Condensed = Annotated[
    bool, typer.Option("--condensed", help="remove unjudged documents before measuring")
]
Json = Annotated[Path | None, out_file("--json", help="write all values and tests here")]
Report = Annotated[Path | None, out_file(help="write an HTML report here")]
Latex = Annotated[Path | None, out_file(help="write the table for a paper here")]
Markdown = Annotated[Path | None, out_file(help="write the table for a README here")]
Card = Annotated[
    Path | None, typer.Option(help="a student's folder: put the results into its README.md")
]
CardSystem = Annotated[
    str | None, typer.Option(help="which system is the student of --card, if several could be")
]


@evaluate_app.command()
def evaluate(
    context: typer.Context,
    run: Annotated[
        list[Path] | None, typer.Option(help="TREC run file; repeat to compare several")
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="a system to run on --collection: bm25, bm25-lucene, a MODEL, or A+B; repeat",
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="collection with the relevance judgments")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="split of --collection to evaluate; default test")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="TREC or BEIR file of judgments, instead of --collection")
    ] = None,
    measures: Measures = MEASURES,
    baseline: Baseline = None,
    test: Test = "t",
    condensed: Condensed = False,
    keep_self: CountSelf = False,
    json: Json = None,
    report: Report = None,
    latex: Latex = None,
    markdown: Markdown = None,
    card: Card = None,
    card_system: CardSystem = None,
) -> None:
    """Evaluate run files and models on one collection, with paired significance tests.

    `rkd suite` does the same on many collections.
    """
    from retrieval_kd.evaluation.evaluate_runs import evaluate_files

    if card is None:
        refuse_unused(context, ["card_system"], "about --card", "--card")
    evaluate_files(
        run or [],
        with_=with_ or [],
        collection=collection,
        split=split,
        qrels_path=qrels,
        measures=measures,
        baseline=baseline,
        method=test,
        exclude_self=not keep_self,
        condensed=condensed,
        outputs=Outputs(json, report, latex, markdown, card, card_system),
    )


@evaluate_app.command()
def suite(
    context: typer.Context,
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
        Path | None,
        out_folder("folder for the run files; default runs/suites/SUITE", replaced=False),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="evaluate only these collections, separated by commas")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="let ir_datasets download missing collections")
    ] = False,
    depth: Annotated[
        int | None,
        bounded(Depth, "documents to retrieve per query; default: as the suite says"),
    ] = None,
    max_length: Length = None,
    measures: Annotated[
        str | None, typer.Option(help="measures, separated by commas; default: the suite's")
    ] = None,
    baseline: Baseline = None,
    test: Test = "t",
    condensed: Condensed = False,
    keep_self: CountSelf = False,
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
    from retrieval_kd.evaluation.suite.spec import choose_members, load_suite
    from retrieval_kd.evaluation.systems import check_systems
    from retrieval_kd.metrics.names import parse_measures

    if card is None:
        refuse_unused(context, ["card_system"], "about --card", "--card")
    outputs = Outputs(json, report, latex, markdown, card, card_system)
    systems, chosen = with_ or ["bm25"], only.split(",") if only else ()
    outputs.check_card(check_systems(systems, baseline))
    choose_members(load_suite(name), data, chosen)
    parse_measures(measures or MEASURES)
    # after all that needs no model: these load torch
    from retrieval_kd.evaluation.suite.report import print_suite, render, result_grids, suite_record
    from retrieval_kd.evaluation.suite.run import evaluate_suite
    from retrieval_kd.progress import console

    result = evaluate_suite(
        name,
        systems,
        data=data,
        out=out,
        only=chosen,
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
        lambda: suite_record(result),
        result_grids(result),
        page=lambda: render(result),
        evaluations={
            f"{collection}, {part.located.split}": part.evaluation
            for collection, part in result.collections.items()
        },
        systems=result.options.systems,
    )


@evaluate_app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="result file of `rkd evaluate` or `rkd run`")],
    b: Annotated[
        Path, typer.Argument(help="the result file to compare it with; differences are B − A")
    ],
    measures: Annotated[
        str | None, typer.Option(help="default: all measures that both files have")
    ] = None,
    test: Test = "t",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="compare even if the judgments differ")
    ] = False,
    json: Json = None,
    latex: Latex = None,
    markdown: Markdown = None,
) -> None:
    """Compare two result files: which inputs differ, and paired tests of what both contain."""
    from retrieval_kd.evaluation.compare_results import compare_files, to_grid
    from retrieval_kd.evaluation.report.grid import print_grid
    from retrieval_kd.progress import Screen

    result = compare_files(a, b, measures=measures, method=test, anyway=anyway)
    console, table = Screen(), to_grid(result)
    for line in result.lines():
        console.print(line, markup=False, highlight=False, emoji=False)
    print_grid(table, console)
    Outputs(json=json, latex=latex, markdown=markdown).write(result.to_json, [table])
