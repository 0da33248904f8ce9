"""The command `lucene`: searches pyserini's prebuilt indexes for its topics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import Depth, KeepSelf, RunOut

lucene_app = typer.Typer()


@lucene_app.command()
def lucene(
    topics: Annotated[
        str, typer.Argument(help="pyserini's name, such as beir-v1.0.0-scifact-test")
    ],
    index: Annotated[str, typer.Option(help="prebuilt index, such as beir-v1.0.0-scifact.flat")],
    out: RunOut,
    qrels: Annotated[
        Path | None, typer.Option(help="write the judgments of these topics here")
    ] = None,
    depth: Depth = 1000,
    keep_self: KeepSelf = False,
) -> None:
    """Rank one of pyserini's prebuilt indexes for its topics; missing files are downloaded.

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
