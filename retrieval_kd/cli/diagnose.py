"""The subcommand `diagnose`: compare a teacher's run with its students'. `app.py` mounts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retrieval_kd.cli.options import (
    CollectionOption,
    CountSelf,
    Split,
    bounded,
    out_file,
    refuse_unused,
)
from retrieval_kd.progress import say
from retrieval_kd.schema import Count, Temperature

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection

diagnose_app = typer.Typer()


@diagnose_app.command()
def diagnose(
    context: typer.Context,
    collection: CollectionOption,
    teacher: Annotated[Path, typer.Option(help="the teacher's TREC run file")],
    student: Annotated[Path, typer.Option(help="the student's TREC run file")],
    other: Annotated[
        list[Path] | None, typer.Option(help="run file to show beside the student's; repeat")
    ] = None,
    split: Split = "test",
    measure: Annotated[str, typer.Option(help="measure of quality and failures")] = "ndcg@10",
    first_stage: Annotated[
        Path | None,
        typer.Option(help="run file of the candidates that the teacher ranked; default: its run"),
    ] = None,
    calibrate: Annotated[
        Literal["platt", "isotonic"],
        typer.Option(help="how scores are mapped to probabilities of relevance"),
    ] = "platt",
    temperature: Annotated[
        float, bounded(Temperature, "temperature of the softmax for probability fidelity")
    ] = 1.0,
    scores: Annotated[
        Path | None, typer.Option(help="score store, to estimate false negatives in training data")
    ] = None,
    scores_teacher: Annotated[
        list[str] | None,
        typer.Option(help="teacher of --scores; several are z-normalised and summed; default: all"),
    ] = None,
    train: Annotated[str, typer.Option(help="split of the training queries")] = "train",
    worst: Annotated[int, bounded(Count, "worst queries to list with their texts")] = 10,
    keep_self: CountSelf = False,
    json: Annotated[Path | None, out_file("--json", help="write everything here")] = None,
) -> None:
    """Show where a student differs from its teacher: fidelity, calibration, failures."""
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.data.runs import Run, read_run
    from retrieval_kd.evaluation.diagnostics.diagnose import diagnostics, print_diagnostics
    from retrieval_kd.evaluation.evaluate_runs import run_names
    from retrieval_kd.files import digest_file, write_json

    if scores is None:
        refuse_unused(context, ("scores_teacher", "train"), "about stored scores", "--scores")
    opened = open_collection(collection)
    files = run_names([teacher, student, *(other or [])])
    first, *rest = [Run(name, read_run(path).results) for name, path in files.items()]
    negatives = None
    if scores is not None:
        negatives = _fused_scores(opened, train, scores, scores_teacher or [])
    record = diagnostics(
        opened,
        opened.qrels(split),
        first,
        rest,
        measure=measure,
        first_stage=None if first_stage is None else read_run(first_stage),
        negatives=negatives,
        negatives_qrels=None if negatives is None else opened.qrels(train),
        method=calibrate,
        temperature=temperature,
        worst=worst,
        exclude_self=not keep_self,
    )
    print_diagnostics(record)
    if json is not None:
        inputs = {n: {"path": str(p), "digest": digest_file(p)} for n, p in files.items()}
        source = {"spec": collection, "split": split, "texts_digest": opened.digest()}
        write_json(json, {**record, "inputs": {"collection": source, "runs": inputs}})
        say(json)


def _fused_scores(
    collection: Collection, split: str, store: Path, teachers: list[str]
) -> dict[str, dict[str, float]]:
    """Read the stored scores of a split's candidates; several teachers are z-normalised and summed.

    Without `teachers`, all teachers of the store are used.
    """
    from retrieval_kd.errors import Drops
    from retrieval_kd.store.scores import ScoreStore
    from retrieval_kd.targets.normalise import fuse
    from retrieval_kd.teachers.stored import stored_scores

    drops = Drops()
    names = teachers or [key.fingerprint for key in ScoreStore(store).teachers()]
    lists = stored_scores(collection, collection.query_texts(split), store, names, None, drops)
    fused = fuse(lists, [1.0] * len(lists), drops)
    drops.warn(str(store))
    return dict(fused)
