"""The subcommands that run one stage each: retrieve, score, fit-teacher, train, index, search,
evaluate. `cli.py` mounts them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval_kd.errors import Drops, InputError

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection

stages_app = typer.Typer()

CollectionOption = Annotated[
    str,
    typer.Option("--collection", help="BEIR folder or zip, ir_datasets ID, or python-api[:FOLDER]"),
]
Split = Annotated[str, typer.Option(help="which judged queries")]
Length = Annotated[int | None, typer.Option(help="tokens per text; default: the model's own")]


@stages_app.command()
def retrieve(
    collection: CollectionOption,
    out: Annotated[Path, typer.Option(help="TREC run file to write; .gz compresses")],
    with_: Annotated[
        str, typer.Option("--with", help="bm25, bm25-lucene, a MODEL, or A+B to fuse by rank")
    ] = "bm25",
    split: Split = "test",
    depth: Annotated[int, typer.Option(min=1, help="documents per query")] = 100,
    max_length: Length = None,
    keep_self: Annotated[
        bool, typer.Option("--keep-self", help="keep a document whose ID is the query's")
    ] = False,
) -> None:
    """Rank a collection's documents for the queries of a split; gives a TREC run file."""
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
    print(f"{out}: {len(run)} queries, up to {depth} documents each")


@stages_app.command()
def score(
    collection: CollectionOption,
    candidates: Annotated[Path, typer.Option(help="TREC run file: which pairs to score")],
    teacher: Annotated[
        str,
        typer.Option(help="[pointwise:]MODEL (a cross-encoder), dense:MODEL, bm25, bm25-lucene"),
    ],
    store: Annotated[Path, typer.Option(help="score store; made if it is not there")],
    max_length: Annotated[
        int | None, typer.Option(help="tokens of query and document together; default 256")
    ] = None,
) -> None:
    """Ask a teacher for the raw score of every candidate that the store does not know yet.

    A job that was killed goes on where it stopped: what is stored is not asked again.
    """
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.data.runs import check_run, read_run
    from retrieval_kd.teachers.score import open_teacher
    from retrieval_kd.teachers.score import score as score_pairs
    from retrieval_kd.teachers.store import ScoreStore

    opened, run = open_collection(collection), read_run(candidates)
    check_run(run, opened)
    queries = {query: opened.queries[query].full for query in run.results}
    asked = open_teacher(teacher, opened, max_length=max_length)
    wanted = {query: list(found) for query, found in run.results.items()}
    made = score_pairs(opened, queries, wanted, asked, ScoreStore(store))
    if made.stale:
        print(f"{made.stale} pairs were stored for other texts under these IDs; scored again")
    print(
        f"{store}: {made.pairs} pairs, {made.reused} known, {made.scored} scored in "
        f"{made.seconds:.0f} s by {made.teacher} ({made.fingerprint})"
    )


@stages_app.command("fit-teacher")
def fit_teacher(
    collection: CollectionOption,
    candidates: Annotated[Path, typer.Option(help="TREC run file of the split: the negatives")],
    base: Annotated[str, typer.Option(help="MODEL: a cross-encoder, or an encoder to make one of")],
    out: Annotated[Path, typer.Option(help="folder for the teacher")],
    split: Split = "train",
    steps: Annotated[
        int, typer.Option(min=1, help="optimizer steps of 8 queries × 8 documents")
    ] = 150,
    max_length: Annotated[
        int | None, typer.Option(help="tokens of a pair when it is used; default 256")
    ] = None,
    seed: int = 0,
) -> None:
    """Fine-tune a cross-encoder on judged queries with mined negatives."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.data.runs import check_run, read_run
    from retrieval_kd.schema import validate
    from retrieval_kd.training import fit_teacher as fitting
    from retrieval_kd.training.slates import build_pools

    opened, run, drops = open_collection(collection), read_run(candidates), Drops()
    check_run(run, opened)
    pools = build_pools(
        opened.query_texts(split), run.results, opened, opened.qrels(split), None, drops
    )
    drops.warn(str(candidates))
    fitting.engine.check_replaceable(out)
    changed = {**fitting.FIT_DEFAULTS.model_dump(), "steps": steps, "seed": seed}
    settings = validate(fitting.TrainSettings, changed)
    record = fitting.fit_teacher(
        base, pools, opened.documents, out, settings=settings, max_length=max_length
    )
    print(f"{out}: {record['steps']} steps in {record['seconds']:.0f} s")


@stages_app.command()
def train(
    collection: CollectionOption,
    student: Annotated[str, typer.Option(help="MODEL to start from")],
    out: Annotated[Path, typer.Option(help="folder for the student")],
    store: Annotated[Path | None, typer.Option(help="score store of the teachers")] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="name or fingerprint in the store; several are z-normalised and summed; "
            "default: the only one there"
        ),
    ] = None,
    weight: Annotated[list[float] | None, typer.Option(help="of each --teacher; default 1")] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="TREC run file; needed without a store")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="kl, margin_mse, infonce; sums: kl:1.0+infonce:0.5@batch")
    ] = "kl",
    split: Split = "train",
    layers: Annotated[str | None, typer.Option(help="layers to keep, such as 0,2,5")] = None,
    dev_split: Annotated[str | None, typer.Option(help="for the learning curve")] = None,
    steps: Annotated[int, typer.Option(min=1, help="optimizer steps")] = 200,
    batch_queries: Annotated[int, typer.Option(min=1, help="queries per step")] = 32,
    slate_size: Annotated[int, typer.Option(min=2, help="candidates per query")] = 4,
    max_tokens: Annotated[int, typer.Option(help="tokens per document in training")] = 64,
    learning_rate: float = 1e-4,
    seed: int = 0,
) -> None:
    """Train a student on stored teacher scores, on judgments, or on both."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.retrieval.retrieve import retrieve as retrieve_run
    from retrieval_kd.schema import validate
    from retrieval_kd.students.dense import make_student
    from retrieval_kd.training.curve import build_dev_task
    from retrieval_kd.training.engine import TrainSettings, check_replaceable
    from retrieval_kd.training.slates import build_pools
    from retrieval_kd.training.terms import parse_terms
    from retrieval_kd.training.train import train_student

    terms = parse_terms(objective)
    given: dict[str, float] = {
        "steps": steps,
        "batch_queries": batch_queries,
        "slate_size": slate_size,
    }
    given |= {"max_tokens": max_tokens, "learning_rate": learning_rate, "seed": seed}
    settings = validate(TrainSettings, given)
    check_replaceable(out)
    kept = _integers(layers) if layers else None
    opened, drops = open_collection(collection), Drops()
    queries = opened.query_texts(split)
    wanted, scores = _candidates(opened, queries, candidates, store, teacher or [], weight)
    if not any(term.learns_from == "teacher" for term in terms):
        scores = None  # a label-only student's negatives owe nothing to the teacher
    pools = build_pools(queries, wanted, opened, opened.qrels(split), scores, drops)
    drops.warn(f"training on {opened.name}/{split}")
    dev = None
    if dev_split is not None:
        texts = opened.query_texts(dev_split)
        first = retrieve_run(opened, texts, "bm25", 20)
        dev = build_dev_task(opened, texts, opened.qrels(dev_split), first)
    model = make_student(student, kept)
    record = train_student(model, pools, opened.documents, terms, settings, out, dev=dev)
    size = record["student"]
    print(
        f"{out}: {size['layers']} layers, {size['parameters']:,} parameters, "
        f"{record['steps']} steps on {record['queries']} queries in {record['seconds']:.0f} s"
    )


@stages_app.command()
def index(
    collection: CollectionOption,
    model: Annotated[str, typer.Option(help="MODEL that encodes documents and queries")],
    out: Annotated[Path, typer.Option(help="folder for the index")],
    spec: Annotated[Path, typer.Option(help="index specification, see indexes/*.yaml")] = Path(
        "indexes/flat.yaml"
    ),
    max_length: Length = None,
) -> None:
    """Encode a collection and build a FAISS index that knows its model and document IDs."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.indexing.build import build_index
    from retrieval_kd.indexing.spec import load_spec

    made = build_index(
        open_collection(collection), model, load_spec(spec), out, max_length=max_length
    )
    size = sum(int(file["bytes"]) for file in made.manifest["files"].values())
    print(f"{out}: {len(made):,} documents, {size / 2**20:.1f} MiB")


@stages_app.command()
def search(
    index: Annotated[Path, typer.Option(help="folder made by `rkd index`")],
    query: Annotated[str | None, typer.Argument(help="a question")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="JSONL ({_id, text}) or TSV of queries, instead of one")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="TREC run file for --queries")] = None,
    depth: Annotated[int, typer.Option(min=1, help="documents per query")] = 10,
    model: Annotated[str | None, typer.Option(help="MODEL, if it was moved")] = None,
) -> None:
    """Answer a typed query with titles and snippets, or a file of queries with a run."""
    from retrieval_kd.indexing.index import Index
    from retrieval_kd.indexing.show import snippets

    if (query is None) == (queries is None):
        raise InputError("give either a question or --queries FILE")
    opened = Index.open(index, model)
    if queries is not None:
        from retrieval_kd.data.query_files import read_queries
        from retrieval_kd.data.runs import write_run

        if out is None:
            raise InputError("--queries needs --out, the run file to write")
        run = opened.search_run(read_queries(queries), depth)
        write_run(run, out)
        print(f"{out}: {len(run)} queries")
        return
    assert query is not None
    [hits] = opened.search([query], depth)
    for shown in snippets(opened.collection().documents, hits, query):
        title = shown.title or shown.document_id
        print(f"{shown.rank:3}. {title}  [{shown.document_id}]  {shown.score:.4f}")
        print(f"     {shown.snippet}")


@stages_app.command()
def evaluate(
    run: Annotated[list[Path], typer.Option(help="TREC run file; give several to compare them")],
    collection: Annotated[str | None, typer.Option(help="judgments of this collection")] = None,
    split: Split = "test",
    qrels: Annotated[Path | None, typer.Option(help="or judgments of a TREC or BEIR file")] = None,
    measures: Annotated[
        str, typer.Option(help="any that ranx names")
    ] = "ndcg@10,mrr@10,recall@100",
    baseline: Annotated[str | None, typer.Option(help="compare with this run only")] = None,
    keep_self: Annotated[
        bool, typer.Option("--keep-self", help="count a document whose ID is the query's")
    ] = False,
    json: Annotated[Path | None, typer.Option("--json", help="write everything here")] = None,
) -> None:
    """Measure runs against judgments, with paired tests between them."""
    from retrieval_kd.evaluation.evaluate_command import evaluate_files

    evaluate_files(
        run,
        collection=collection,
        split=split,
        qrels_path=qrels,
        measures=measures,
        baseline=baseline,
        exclude_self=not keep_self,
        json_out=json,
    )


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.strip("[] ").split(",")]
    except ValueError as error:
        raise InputError(
            f"cannot read the layers {text!r}", remedy="write them as 0,2,5"
        ) from error


def _candidates(
    collection: Collection,
    queries: dict[str, str],
    candidates: Path | None,
    store: Path | None,
    names: list[str],
    weights: list[float] | None,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]] | None]:
    """The candidates to train on, and the (fused) scores of the named teachers, if any."""
    from retrieval_kd.data.runs import check_run, read_run
    from retrieval_kd.teachers.stored import stored_scores
    from retrieval_kd.teachers.targets import fuse

    run = None
    if candidates is not None:
        read = read_run(candidates)
        check_run(read, collection)
        run = {query: found for query, found in read.results.items() if query in queries}
        if not run:
            raise InputError(
                "none of its queries is in this split", file=candidates, remedy="check --split"
            )
    if store is None:
        if run is None:
            raise InputError("nothing to train on", remedy="give --store, or --candidates RUN")
        return run, None
    drops = Drops()
    wanted = {query: list(found) for query, found in run.items()} if run is not None else None
    lists = stored_scores(collection, queries, store, names, wanted, drops)
    fused = fuse(lists, weights or [1.0] * len(lists), drops)
    drops.warn(str(store))
    return (run if run is not None else fused), fused
