"""The commands `retrieve`, `search` and `lucene`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.index_folder import index_in, open_indexes
from retrieval_kd.cli.options import (
    CollectionOption,
    Depth,
    KeepSelf,
    Length,
    RunOut,
    Split,
    out_file,
)
from retrieval_kd.errors import InputError
from retrieval_kd.progress import say

search_app = typer.Typer()


@search_app.command()
def retrieve(
    collection: CollectionOption,
    out: RunOut,
    with_: Annotated[
        str,
        typer.Option("--with", help="bm25, bm25-lucene, lucene, a MODEL, or A+B to fuse by rank"),
    ] = "bm25",
    split: Split = "test",
    depth: Depth = 100,
    max_length: Length = None,
    keep_self: KeepSelf = False,
) -> None:
    """Rank a collection's documents for the queries of a split and write a TREC run file."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.data.runs import write_run
    from retrieval_kd.retrieval.retrieve import retrieve as retrieve_run

    opened = open_collection(collection)
    run = retrieve_run(
        opened,
        opened.query_texts(split),
        with_,
        depth,
        max_length=max_length,
        exclude_self=not keep_self,
    )
    write_run(run, out)
    say(f"{out}: {len(run)} queries, up to {depth} documents each")


@search_app.command()
def search(
    index: Annotated[
        list[Path],
        typer.Option(
            help="folder made by `rkd index` or `rkd index combine`; repeat to search several of "
            "one model"
        ),
    ],
    query: Annotated[str | None, typer.Argument(help="a question")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="JSONL ({_id, text}) or TSV of queries, instead of one")
    ] = None,
    out: Annotated[Path | None, out_file(help="TREC run file for --queries")] = None,
    depth: Depth = 10,
    model: Annotated[
        list[str] | None,
        typer.Option(help="MODEL, if it was moved; of a hybrid's part: PART=MODEL"),
    ] = None,
    parameters: Annotated[
        str | None, typer.Option("--search", help="in place of the index's own, such as nprobe=64")
    ] = None,
) -> None:
    """Search an index for one query (prints titles and snippets) or a file of queries (a run).

    Several indexes of one model are searched as one. An index that `rkd index combine` made is
    searched with all its parts, which are fused with its weights.
    """
    from retrieval_kd.data.query_files import read_queries
    from retrieval_kd.data.runs import write_run

    if (query is None) == (queries is None):
        raise InputError("give either a question or --queries FILE")
    if queries is not None and out is None:
        raise InputError("--queries needs --out, the run file to write")
    if queries is None and out is not None:
        raise InputError("--out is the run file of --queries", remedy="leave it out")
    folders = [index_in(folder) for folder in index]
    texts = {} if queries is None else read_queries(queries)
    opened = open_indexes(folders, model, parameters)
    from retrieval_kd.indexing.snippets import snippets

    if out is not None:
        run = opened.search_run(texts, depth)
        write_run(run, out)
        say(f"{out}: {len(run)} queries")
        return
    assert query is not None
    [hits] = opened.search([query], depth)
    for hit in snippets(opened.texts(), hits, query):
        say(f"{hit.rank:3}. {hit.title or hit.document_id}  [{hit.document_id}]  {hit.score:.4f}")
        say(f"     {hit.text}")


@search_app.command()
def lucene(
    topics: Annotated[
        str, typer.Argument(help="pyserini's name, such as beir-v1.0.0-scifact-test")
    ],
    index: Annotated[str, typer.Option(help="prebuilt index, such as beir-v1.0.0-scifact.flat")],
    out: RunOut,
    qrels: Annotated[Path | None, out_file(help="write the judgments of these topics here")] = None,
    depth: Depth = 1000,
    keep_self: KeepSelf = False,
) -> None:
    """Search one of pyserini's prebuilt indexes with its topics; missing files are downloaded.

    To evaluate: rkd evaluate --run OUT --qrels QRELS. Needs the extra `pyserini`.
    """
    from retrieval_kd.data.qrels import read_qrels, write_qrels
    from retrieval_kd.data.runs import write_run
    from retrieval_kd.retrieval.lucene import prebuilt_run, qrels_file
    from retrieval_kd.retrieval.lucene import topics as read_topics

    queries = read_topics(topics)
    run = prebuilt_run(index, queries, depth, exclude_self=not keep_self)
    write_run(run, out)
    say(f"{out}: {len(run)} queries, up to {depth} documents each")
    if qrels is not None:
        write_qrels(read_qrels(qrels_file(topics)), qrels)
        say(f"{qrels}: judgments")
