"""The command `rkd audit`: find evaluation data among the training data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import CountSelf, bounded, out_file, refuse_unused
from retrieval_kd.errors import InputError
from retrieval_kd.schema import Count, Depth, Share

audit_app = typer.Typer()


@audit_app.command()
def audit(
    context: typer.Context,
    train: Annotated[
        list[str],
        typer.Option(
            help="training data: COLLECTION:SPLIT, scores:FOLDER, run:FOLDER, file:PATH; repeatable"
        ),
    ],
    eval_: Annotated[str, typer.Option("--eval", help="evaluation data: COLLECTION:SPLIT")],
    collection: Annotated[
        str | None,
        typer.Option(
            help="collection in which to look up the texts of score stores and unfinished runs"
        ),
    ] = None,
    json: Annotated[Path | None, out_file("--json", help="write every pair here")] = None,
    with_: Annotated[
        str | None,
        typer.Option(
            "--with", help="MODEL for embedding neighbours; by default they are not searched"
        ),
    ] = None,
    cosine: Annotated[float, bounded(Share, "minimum cosine of embedding neighbours")] = 0.95,
    near_queries: Annotated[float, bounded(Share, "minimum Jaccard similarity of queries")] = 0.6,
    near_documents: Annotated[
        float, bounded(Share, "minimum Jaccard similarity of documents")
    ] = 0.5,
    ngram_queries: Annotated[int, bounded(Depth, "words in an n-gram of queries")] = 8,
    ngram_documents: Annotated[int, bounded(Depth, "words in an n-gram of documents")] = 13,
    ngram_share: Annotated[
        float, bounded(Share, "minimum share of the shorter text's n-grams")
    ] = 0.5,
    queries_only: Annotated[
        bool, typer.Option("--queries-only", help="do not compare documents")
    ] = False,
    most: Annotated[int, bounded(Depth, "pairs listed for each evaluated text")] = 10,
    run: Annotated[
        list[Path] | None, typer.Option(help="TREC run file to measure on clean queries too")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="or a result file of `rkd evaluate` or `rkd run`")
    ] = None,
    measures: Annotated[str, typer.Option(help="measures for --run")] = "ndcg@10,mrr@10,recall@100",
    baseline: Annotated[str | None, typer.Option(help="run that others are compared with")] = None,
    keep_self: CountSelf = False,
    rows: Annotated[int, bounded(Count, "pairs shown of each kind of text")] = 10,
    fail_on_overlap: Annotated[
        bool, typer.Option("--fail-on-overlap", help="exit with 1 if a query overlaps")
    ] = False,
) -> None:
    """List overlaps of training and evaluation data, and measure with and without them."""
    from retrieval_kd.audit.audit import audit as run_audit
    from retrieval_kd.audit.effect import evaluate_groups
    from retrieval_kd.audit.overlap import Limits
    from retrieval_kd.audit.show import print_audit
    from retrieval_kd.files import write_json

    if run and results is not None:
        raise InputError("both --run and --results are given", remedy="give only one of them")
    if not run and results is None:
        measured = ("measures", "baseline", "keep_self")
        refuse_unused(context, measured, "about what is measured", "--run or --results")
    if with_ is None:
        refuse_unused(context, ["cosine"], "about embedding neighbours", "--with")
    common = Limits(near_queries, ngram_queries, ngram_share, cosine, most)
    documents = replace(common, near=near_documents, ngram=ngram_documents)
    result = run_audit(
        train,
        eval_,
        collection=collection,
        queries=common,
        documents=None if queries_only else documents,
        model=with_,
    )
    effect = None
    if run or results is not None:
        effect = evaluate_groups(
            result,
            run or [],
            results,
            measures=measures,
            baseline=baseline,
            exclude_self=not keep_self,
        )
    print_audit(result, effect, rows)
    if json is not None:
        record = result.to_json() | {"effect": effect.to_json() if effect else None}
        write_json(json, record)
    if fail_on_overlap and len(result.groups()["clean"]) < len(result.queries):
        raise typer.Exit(1)
