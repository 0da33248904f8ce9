"""The subcommand `lucene`: pyserini's topics, judgments, prebuilt indexes. `cli.py` mounts it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

lucene_app = typer.Typer()


@lucene_app.command()
def lucene(
    topics: Annotated[str, typer.Argument(help="pyserini's name, as beir-v1.0.0-scifact-test")],
    index: Annotated[str, typer.Option(help="prebuilt index, as beir-v1.0.0-scifact.flat")],
    out: Annotated[Path, typer.Option(help="TREC run file to write; .gz compresses")],
    qrels: Annotated[
        Path | None, typer.Option(help="write the judgments of these topics here")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="documents per query")] = 1000,
    keep_self: Annotated[
        bool, typer.Option("--keep-self", help="keep a document whose ID is the query's")
    ] = False,
) -> None:
    """Rank one of pyserini's prebuilt indexes for its topics; what is not there is downloaded.

    Then: rkd evaluate --run OUT --qrels QRELS. Needs the extra `pyserini`.
    """
    from retrieval_kd.data.qrels import read_qrels, write_qrels
    from retrieval_kd.data.runs import write_run
    from retrieval_kd.retrieval.lucene import prebuilt_run, qrels_file
    from retrieval_kd.retrieval.lucene import topics as read_topics

    queries = read_topics(topics)
    run = prebuilt_run(index, queries, depth, exclude_self=not keep_self)
    write_run(run, out)
    print(f"{out}: {len(run)} queries, up to {depth} documents each")
    if qrels is not None:
        write_qrels(read_qrels(qrels_file(topics)), qrels)
        print(f"{qrels}: judgments")
