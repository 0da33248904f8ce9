"""The subcommands evaluate and compare. `cli.py` mounts them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.outputs import Outputs

evaluate_app = typer.Typer()

Json = Annotated[Path | None, typer.Option("--json", help="write everything here")]
Latex = Annotated[Path | None, typer.Option(help="write the table for a paper here")]
Markdown = Annotated[Path | None, typer.Option(help="write the table for a README here")]
Test = Annotated[str, typer.Option("--test", help="t, or randomisation")]
MEASURES = "ndcg@10,mrr@10,recall@100"
Measures = Annotated[
    str | None,
    typer.Option(help=f"any that ranx names; default {MEASURES}, of a suite its official ones"),
]


@evaluate_app.command()
def evaluate(
    run: Annotated[
        list[Path] | None, typer.Option(help="TREC run file; give several to compare them")
    ] = None,
    collection: Annotated[str | None, typer.Option(help="judgments of this collection")] = None,
    split: Annotated[
        str | None, typer.Option(help="which judged queries of --collection; default test")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="or judgments of a TREC or BEIR file")] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="instead of run files: retrieve on all collections of a suite; a name "
            "from configs/suites, such as beir or local, or a YAML file"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="suite: folder with BEIR folders and zips; default $RETRIEVAL_KD_DATA"),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", help="suite: bm25, bm25-lucene, a MODEL, or A+B; repeat to compare"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="suite: folder of its runs; default runs/suites/NAME")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="suite: these collections, separated by commas")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="suite: let ir_datasets fetch what is missing")
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="suite: documents per query; default the suite's or a measure's"),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="suite: tokens per text; default: the model's own")
    ] = None,
    measures: Measures = None,
    baseline: Annotated[str | None, typer.Option(help="compare with this one only")] = None,
    test: Test = "t",
    condensed: Annotated[
        bool, typer.Option("--condensed", help="leave unjudged documents out before measuring")
    ] = False,
    keep_self: Annotated[
        bool, typer.Option("--keep-self", help="count a document whose ID is the query's")
    ] = False,
    json: Json = None,
    report: Annotated[Path | None, typer.Option(help="write an HTML report here")] = None,
    latex: Latex = None,
    markdown: Markdown = None,
    card: Annotated[
        Path | None, typer.Option(help="a student's folder: put the results into its README.md")
    ] = None,
    card_system: Annotated[
        str | None, typer.Option(help="which system the student is, if that is not plain")
    ] = None,
) -> None:
    """Measure runs against judgments, or systems on a suite of collections, with paired tests."""
    outputs = Outputs(json, report, latex, markdown, card, card_system)
    if suite is None:
        _refuse(
            "only with --suite", data=data, with_=with_, out=out, only=only, depth=depth,
            max_length=max_length, download=download or None,
        )  # fmt: skip
        from retrieval_kd.evaluation.evaluate_runs import evaluate_files

        evaluate_files(
            run or [],
            collection=collection,
            split=split,
            qrels_path=qrels,
            measures=measures or MEASURES,
            baseline=baseline,
            method=_method(test),
            exclude_self=not keep_self,
            condensed=condensed,
            outputs=outputs,
        )
        return
    _refuse("not with --suite", run=run, collection=collection, split=split, qrels=qrels)
    from retrieval_kd.evaluation.outputs import check_card
    from retrieval_kd.evaluation.suite.outputs import print_suite, write_outputs
    from retrieval_kd.evaluation.suite.run import evaluate_suite
    from retrieval_kd.evaluation.systems import system_names
    from retrieval_kd.progress import console

    systems = with_ or ["bm25"]
    check_card(outputs, system_names(systems))
    result = evaluate_suite(
        suite,
        systems,
        data=data,
        out=out,
        only=only.split(",") if only else (),
        measures=measures,
        depth=depth,
        max_length=max_length,
        baseline=baseline,
        method=_method(test),
        exclude_self=not keep_self,
        condensed=condensed,
        download=download,
        tell=lambda line: console.print(line, markup=False, highlight=False, emoji=False),
    )
    print_suite(result)
    write_outputs(result, outputs)


@evaluate_app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="result file of `rkd evaluate` or `rkd run`")],
    b: Annotated[Path, typer.Argument(help="another; differences are B − A")],
    measures: Annotated[str | None, typer.Option(help="of those in both files")] = None,
    test: Test = "t",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="compare also where the judgments differ")
    ] = False,
    json: Json = None,
    latex: Latex = None,
    markdown: Markdown = None,
) -> None:
    """Compare two result files: which inputs differ, and paired tests of what is in both."""
    from rich.console import Console

    from retrieval_kd.evaluation.compare_results import compare_files, to_grid
    from retrieval_kd.evaluation.report import grid
    from retrieval_kd.evaluation.report.terminal import print_grid
    from retrieval_kd.files import write_json, write_text

    result = compare_files(a, b, measures=measures, method=_method(test), anyway=anyway)
    console, table = Console(), to_grid(result)
    for part in result.collections:
        head = f"{part.collection}: " if part.collection else ""
        for line in (f"{part.queries:,} queries in both", *part.differences):
            console.print(f"{head}{line}", markup=False, highlight=False, emoji=False)
        for warning in part.warnings:
            console.print(f"Warning: {head}{warning}", markup=False, highlight=False, emoji=False)
    for warning in result.warnings:
        console.print(f"Warning: {warning}", markup=False, highlight=False, emoji=False)
    print_grid(table, console)
    if json is not None:
        write_json(json, result.to_json())
    if latex is not None:
        write_text(latex, grid.to_latex(table) + "\n")
    if markdown is not None:
        write_text(markdown, grid.to_markdown(table) + "\n")


def _method(test: str) -> Literal["t", "randomisation"]:
    if test not in ("t", "randomisation"):
        raise InputError(f"unknown test {test!r}", remedy="choose t or randomisation")
    return cast(Literal["t", "randomisation"], test)


def _refuse(why: str, **given: object) -> None:
    wrong = [name for name, value in given.items() if value not in (None, [], ())]
    if wrong:
        options = ", ".join(f"--{name.strip('_').replace('_', '-')}" for name in wrong)
        raise InputError(f"{options}: {why}", remedy="see rkd evaluate --help")
