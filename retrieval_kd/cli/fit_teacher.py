"""The subcommand `fit-teacher`. `app.py` mounts it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import (
    Split,
    bounded,
    out_folder,
    refuse_unused,
    setting,
)
from retrieval_kd.cli.train import (
    Layers,
    Seed,
    Settings,
    Store,
    Teachers,
    Weights,
    integers,
    stored_teachers,
)
from retrieval_kd.errors import InputError
from retrieval_kd.models.lora import ALL_LINEAR, Lora
from retrieval_kd.progress import say
from retrieval_kd.schema import Tokens, validate
from retrieval_kd.training.trainer.settings import TrainSettings

fit_app = typer.Typer()


@fit_app.command("fit-teacher")
def fit_teacher(
    context: typer.Context,
    collection: Annotated[
        list[str],
        typer.Option(
            "--collection",
            help="BEIR folder or zip, ir_datasets ID, or python-api[:FOLDER]; may be given several "
            "times: each gets the same share of the training, however many queries it has",
        ),
    ],
    base: Annotated[
        str,
        typer.Option(
            help="MODEL: a cross-encoder, or an encoder to make one of; or yesno:MODEL, a decoder"
        ),
    ],
    out: Annotated[Path, out_folder("folder for the teacher")],
    candidates: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="TREC run file of the split: the negatives; once for each --collection, in the "
            "same order; needed without a store",
        ),
    ] = None,
    store: Store = None,
    teacher: Teachers = None,
    weight: Weights = None,
    objective: Annotated[
        str,
        typer.Option(
            help="infonce: from judgments; kl, margin_mse, …: from stored scores; or sums"
        ),
    ] = "infonce",
    lora: Annotated[
        int | None,
        setting(
            Lora,
            "rank",
            metavar="RANK",
            help="train LoRA adapters of this rank for yesno:MODEL and leave the model as it is; "
            "needs the extra `lora`",
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None, setting(Lora, "alpha", help="their scale is alpha/rank; default: 2 × rank")
    ] = None,
    lora_targets: Annotated[
        str, typer.Option(help="layers that get adapters, such as q_proj,v_proj")
    ] = ALL_LINEAR,
    split: Split = "train",
    steps: Annotated[
        int, setting(TrainSettings, "steps", help="optimizer steps of 8 queries × 8 documents")
    ] = 150,
    max_length: Annotated[
        int | None,
        bounded(
            Tokens, "tokens of a pair when it is used (of a decoder: of a passage); default 256"
        ),
    ] = None,
    layers: Layers = None,
    seed: Seed = 0,
    set_: Settings = None,
) -> None:
    """Fine-tune a teacher on judged queries with mined negatives, or on stored scores.

    The teacher is a cross-encoder, or a decoder that answers yes or no. If the command is killed,
    running it again resumes from the last checkpoint. For a teacher of several collections, give
    each --collection and its --candidates.
    """
    from retrieval_kd.pipeline.train_stored import fit_stored
    from retrieval_kd.schema import apply_overrides
    from retrieval_kd.training.trainer.card import learnt_from

    if store is None:
        refuse_unused(context, ("teacher", "weight"), "about teachers of a store", "--store")
    record = fit_stored(
        collection,
        split,
        base,
        objective,
        apply_overrides({"steps": steps, "seed": seed}, set_ or []),
        out,
        teachers=stored_teachers(store, teacher, weight),
        candidates=candidates or (),
        layers=integers(layers) if layers else None,
        lora=lora_of(lora, lora_alpha, lora_targets),
        max_length=max_length,
    )
    steps, seconds = record["steps"], record["seconds"]
    say(f"{out}: {steps} steps on {learnt_from(record)} in {seconds:.0f} s")


def lora_of(rank: int | None, alpha: float | None, targets: str) -> Lora | None:
    """Build the LoRA settings from the command line's options; None if no rank was given.

    Example:
        >>> lora_of(8, None, "q_proj,v_proj")
        Lora(rank=8, alpha=None, targets=['q_proj', 'v_proj'])
    """
    if rank is None:
        if alpha is not None or targets != ALL_LINEAR:
            raise InputError("adapters need a rank", remedy="add --lora 8")
        return None
    layers = targets if targets == ALL_LINEAR else [name.strip() for name in targets.split(",")]
    return validate(Lora, {"rank": rank, "alpha": alpha, "targets": layers})
