"""The subcommands about students: train and parts. `cli.py` mounts them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_kd.cli.search import CollectionOption, Split
from retrieval_kd.errors import Drops, InputError

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection
    from retrieval_kd.training.objective.terms import Term

train_app = typer.Typer()
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="any other setting of `train` in a configuration, such as dropout=0.1 or "
        "save_steps=20; may be given several times",
    ),
]
Store = Annotated[Path | None, typer.Option(help="score store of the teachers to learn from")]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        help="name or fingerprint in the store; several are z-normalised and summed; "
        "default: the only one there"
    ),
]
Weights = Annotated[list[float] | None, typer.Option(help="of each --teacher; default 1")]
Layers = Annotated[str | None, typer.Option(help="layers to keep, such as 0,2,5")]


@train_app.command()
def train(
    collection: CollectionOption,
    student: Annotated[str, typer.Option(help="MODEL to start from")],
    out: Annotated[Path, typer.Option(help="folder for the student")],
    store: Store = None,
    teacher: Teachers = None,
    weight: Weights = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="pairwise teacher in the store, by name or fingerprint: pair_kl learns what it "
            "answered about two candidates at a time, in place of differences of scores"
        ),
    ] = None,
    candidates: Annotated[
        Path | None, typer.Option(help="TREC run file; needed without a store")
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="kl, margin_mse, infonce; sums: kl(teacher_temperature=0.5):1.0+infonce:0.5@batch"
        ),
    ] = "kl",
    split: Split = "train",
    layers: Layers = None,
    kind: Annotated[
        str, typer.Option(help="dense, sparse (SPLADE), multi_vector (ColBERT) or cross_encoder")
    ] = "dense",
    dev_split: Annotated[str | None, typer.Option(help="for the learning curve")] = None,
    steps: Annotated[int, typer.Option(min=1, help="optimizer steps")] = 200,
    batch_queries: Annotated[int, typer.Option(min=1, help="queries per step")] = 32,
    slate_size: Annotated[int, typer.Option(min=2, help="candidates per query")] = 4,
    max_tokens: Annotated[int, typer.Option(help="tokens per document in training")] = 64,
    learning_rate: float = 1e-4,
    seed: int = 0,
    set_: Settings = None,
) -> None:
    """Train a student on stored teacher scores, on judgments, or on both."""
    from retrieval_kd.config.training_checks import check_vectors
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.retrieval.retrieve import retrieve as retrieve_run
    from retrieval_kd.schema import apply_overrides, as_input_error, validate
    from retrieval_kd.students.make import make_student
    from retrieval_kd.students.options import RE_RANKS
    from retrieval_kd.teachers.stored import stored_pairs
    from retrieval_kd.training.batches.slates import build_pools
    from retrieval_kd.training.job import TrainingJob
    from retrieval_kd.training.objective.parse import parse_terms
    from retrieval_kd.training.train_student import train_student
    from retrieval_kd.training.trainer.checkpoints import check_replaceable
    from retrieval_kd.training.trainer.curve import build_dev_task
    from retrieval_kd.training.trainer.settings import TrainSettings

    terms = parse_terms(objective)
    as_input_error(check_vectors, terms, kind)
    if pairs is not None:
        terms = _of_pairs(terms, store)
    given: dict[str, Any] = {
        "steps": steps,
        "batch_queries": batch_queries,
        "slate_size": slate_size,
    }
    given |= {"max_tokens": max_tokens, "learning_rate": learning_rate, "seed": seed}
    settings = validate(TrainSettings, apply_overrides(given, set_ or []))
    if kind in RE_RANKS and dev_split is not None:
        raise InputError(
            f"a {kind} student has no learning curve: a point would be too many pairs",
            remedy="leave --dev-split out",
        )
    check_replaceable(out)
    kept = integers(layers) if layers else None
    opened, drops = open_collection(collection), Drops()
    queries = opened.query_texts(split)
    wanted, scores = load_training_scores(opened, split, candidates, store, teacher or [], weight)
    if not any(term.learns_from == "teacher" for term in terms):
        scores = None  # a label-only student's negatives owe nothing to the teacher
    answered = None
    if pairs is not None and store is not None:
        answered = stored_pairs(opened, queries, store, pairs, wanted, opened.qrels(split))
    pools = build_pools(queries, wanted, opened, opened.qrels(split), scores, drops, pairs=answered)
    drops.warn(f"training on {opened.name}/{split}")
    dev = None
    if dev_split is not None:
        texts = opened.query_texts(dev_split)
        first = retrieve_run(opened, texts, "bm25", 20)
        dev = build_dev_task(opened, texts, opened.qrels(dev_split), first)
    model = make_student(student, kind, kept, seed=seed)
    job = TrainingJob(model, pools, opened.documents, terms, settings, out, dev=dev)
    record = train_student(job)
    size = record["student"]
    print(
        f"{out}: {size['layers']} layers, {size['parameters']:,} parameters, "
        f"{record['steps']} steps on {record['queries']} queries in {record['seconds']:.0f} s"
    )


@train_app.command()
def parts(
    student: Annotated[str, typer.Argument(help="MODEL: a multi_function student")],
    out: Annotated[Path, typer.Argument(help="folder for dense/, sparse/ and multi_vector/")],
) -> None:
    """Save each function of a multi-function student as a model of its own."""
    import torch

    from retrieval_kd.models.load import load_encoder
    from retrieval_kd.models.modules.multi_function import MultiFunctionEncoder
    from retrieval_kd.students.multi_function import save_parts

    model = load_encoder(student, dtype=torch.float32)
    if not isinstance(model, MultiFunctionEncoder):
        raise InputError(
            f"{student} has one function only", remedy="give a student of kind multi_function"
        )
    for folder in save_parts(model, out).values():
        print(folder)


def integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.strip("[] ").split(",")]
    except ValueError as error:
        raise InputError(
            f"cannot read the layers {text!r}", remedy="write them as 0,2,5"
        ) from error


def _of_pairs(terms: list[Term], store: Path | None) -> list[Term]:
    """The terms, of which pair_kl learns stored answers about pairs."""
    from retrieval_kd.schema import validate
    from retrieval_kd.training.objective.terms import Term

    if store is None:
        raise InputError("--pairs names a teacher of a store", remedy="give its folder: --store")
    if not any(term.name == "pair_kl" for term in terms):
        raise InputError(
            "no objective here learns answers about pairs",
            remedy="add pair_kl, as in --objective kl+pair_kl, or leave --pairs out",
        )
    learns = {"teacher": "pairs:0"}
    told = ({**t.model_dump(), **(learns if t.name == "pair_kl" else {})} for t in terms)
    return [validate(Term, one) for one in told]


def load_training_scores(
    collection: Collection,
    split: str,
    candidates: Path | None,
    store: Path | None,
    names: list[str],
    weights: list[float] | None,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]] | None]:
    """The candidates to train on, and the (fused) scores of the named teachers, if any.

    Relevant documents of the split have scores, too, where the teachers gave them.
    """
    from retrieval_kd.data.runs import check_run, read_run
    from retrieval_kd.targets.normalise import fuse
    from retrieval_kd.teachers.stored import stored_scores

    run, queries = None, collection.query_texts(split)
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
    qrels = collection.qrels(split)
    lists = stored_scores(collection, queries, store, names, wanted, drops, qrels)
    fused = fuse(lists, weights or [1.0] * len(lists), drops, names=names)
    drops.warn(str(store))
    return (run if run is not None else fused), fused
