"""The subcommands about students: train and parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_kd.cli.options import (
    CollectionOption,
    Split,
    bounded,
    out_folder,
    refuse_unused,
    setting,
)
from retrieval_kd.data.numerals import whole_number
from retrieval_kd.errors import InputError
from retrieval_kd.progress import say
from retrieval_kd.schema import Weight
from retrieval_kd.training.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from retrieval_kd.pipeline.stored_ensemble import StoredTeachers

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
Store = Annotated[Path | None, typer.Option(help="score store with the teachers' scores")]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        help="name or fingerprint in the store; several are fused, see --fusion; "
        "default: the only one in the store"
    ),
]
Weights = Annotated[list[float] | None, bounded(list[Weight], "of each --teacher; default 1")]
Fusion = Annotated[
    str,
    typer.Option(
        help="how several teachers become one: z_scores (weighted sum), calibrated, ranks, "
        "agreement or learned; calibrated and learned are fitted on --dev-split"
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(help="of --fusion calibrated: platt, isotonic or temperature; default: platt"),
]
Seed = Annotated[int, setting(TrainSettings, "seed")]
ENSEMBLE = ("teacher", "weight", "fusion", "calibration", "pairs")  # parameters that need a store
Layers = Annotated[str | None, typer.Option(help="layers to keep, such as 0,2,5")]


@train_app.command()
def train(
    context: typer.Context,
    collection: CollectionOption,
    student: Annotated[str, typer.Option(help="MODEL to start from")],
    out: Annotated[Path, out_folder("folder for the student")],
    store: Store = None,
    teacher: Teachers = None,
    weight: Weights = None,
    fusion: Fusion = "z_scores",
    calibration: Calibration = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="pairwise teacher in the store, by name or fingerprint: pair_kl trains on its "
            "answers about two candidates at a time, in place of differences of scores"
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="TREC run file; needed without a store, except by stages over texts"),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="kl, margin_mse, infonce; sums: kl(teacher_temperature=0.5):1.0+infonce:0.5@batch"
            "; default: kl"
        ),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML file with what stands under students.NAME in a configuration, such as "
            "stages, in place of --objective; its own settings come before the options here",
        ),
    ] = None,
    split: Split = "train",
    layers: Layers = None,
    kind: Annotated[
        str,
        typer.Option(
            help="dense, sparse (SPLADE), multi_vector (ColBERT), residual, static, asymmetric, "
            "adapter or cross_encoder"
        ),
    ] = "dense",
    query: Annotated[
        str | None,
        typer.Option(
            help="idf: queries of a sparse student are a table of word weights, without a "
            "transformer; by default one model reads queries and documents"
        ),
    ] = None,
    dev_split: Annotated[
        str | None, typer.Option(help="for the learning curve, and to fit --fusion on")
    ] = None,
    steps: Annotated[int, setting(TrainSettings, "steps")] = 200,
    batch_queries: Annotated[int, setting(TrainSettings, "batch_queries")] = 32,
    slate_size: Annotated[int, setting(TrainSettings, "slate_size")] = 4,
    max_tokens: Annotated[
        int, setting(TrainSettings, "max_tokens", help="tokens per document in training")
    ] = 64,
    learning_rate: Annotated[float, setting(TrainSettings, "learning_rate")] = 1e-4,
    seed: Seed = 0,
    set_: Settings = None,
) -> None:
    """Train a student on stored teacher scores, on judgments, or on both."""
    from retrieval_kd.models.names import resolve_model
    from retrieval_kd.schema import apply_overrides, read_extended, validate

    if training is not None and objective is not None:
        raise InputError("the training file has objectives of its own", remedy="leave one out")
    if candidates is not None and not candidates.is_file():
        raise InputError("no such file", file=candidates, remedy="make it with rkd retrieve")
    if store is None:
        refuse_unused(context, ENSEMBLE, "about teachers of a store", "--store")
    own = read_extended(training) if training else {}
    kept = integers(layers) if layers else None
    resolve_model(student)
    # after all that needs no model: each of these takes longer to load than the one before
    from retrieval_kd.config.training import Training

    options: dict[str, Any] = {
        "steps": steps,
        "batch_queries": batch_queries,
        "slate_size": slate_size,
        "max_tokens": max_tokens,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    settings = validate(TrainSettings, apply_overrides(options, set_ or []))
    given = validate(Training, own, training) if training else None
    from retrieval_kd.config.student import Student
    from retrieval_kd.pipeline.train_stored import train_stored, training_on
    from retrieval_kd.training.trainer.card import learnt_from

    teachers = stored_teachers(store, teacher, weight, fusion, calibration, pairs)
    start: dict[str, Any] = {"kind": kind, "base": student, **({"query": query} if query else {})}
    record = train_stored(
        collection,
        split,
        given or training_on(objective or "kl", teachers),
        validate(Student, start | ({"layers": kept} if kept else {})),
        settings,
        out,
        teachers=teachers,
        candidates=candidates,
        dev_split=dev_split,
    )
    size = record["student"]
    say(
        f"{out}: {size['layers'] or 'no'} layers, {size['parameters']:,} parameters, "
        f"{record['steps']} steps on {learnt_from(record)} in {record['seconds']:.0f} s"
    )
    if "share" in record:
        say(f"{out}-merged: averaged with its start, share {record['share']:g}")


@train_app.command()
def parts(
    student: Annotated[str, typer.Argument(help="MODEL: a multi_function student")],
    out: Annotated[
        Path, out_folder("folder for dense/, sparse/ and multi_vector/", of=typer.Argument)
    ],
) -> None:
    """Save each function of a multi-function student as a model of its own."""
    import torch

    from retrieval_kd.files import check_replaceable
    from retrieval_kd.models.load import load_encoder
    from retrieval_kd.models.modules.multi_function import MultiFunctionEncoder
    from retrieval_kd.students.multi_function import save_parts

    check_replaceable(out, "multi_vector", "parts of a student")
    model = load_encoder(student, dtype=torch.float32)
    if not isinstance(model, MultiFunctionEncoder):
        raise InputError(
            f"{student} has one function only", remedy="give a student of kind multi_function"
        )
    for folder in save_parts(model, out).values():
        say(folder)


def integers(text: str) -> list[int]:
    inside = re.fullmatch(r"\[(.*)\]|([^\[\]]*)", text.strip())
    parts = (inside[1] or inside[2] or "").split(",") if inside else []
    numbers = [whole_number(part.strip()) for part in parts]
    if not numbers or any(number is None or number < 0 for number in numbers):
        raise InputError(f"cannot read the layers {text!r}", remedy="write them as 0,2,5")
    return [number for number in numbers if number is not None]


def stored_teachers(
    store: Path | None,
    names: list[str] | None,
    weights: list[float] | None,
    fusion: str = "z_scores",
    calibration: str | None = None,
    pairs: str | None = None,
) -> StoredTeachers | None:
    """Return the teachers that the options name; None if there is no store."""
    from retrieval_kd.pipeline.stored_ensemble import StoredTeachers
    from retrieval_kd.schema import validate

    if store is None:
        return None
    options = {"fusion": fusion, "calibration": calibration, "pairs": pairs}
    return validate(
        StoredTeachers, {"store": store, "names": names or [], "weights": weights, **options}
    )
