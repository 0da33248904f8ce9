"""The subcommands that make teachers: fit-teacher and merge. `cli.py` mounts them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import CollectionOption, Split
from retrieval_kd.cli.train import (
    Layers,
    Settings,
    Store,
    Teachers,
    Weights,
    integers,
    stored_teachers,
)
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.models.lora import ALL_LINEAR, Lora
from retrieval_kd.schema import validate
from retrieval_kd.teachers.spec import check_base

fit_app = typer.Typer()


@fit_app.command("fit-teacher")
def fit_teacher(
    collection: CollectionOption,
    base: Annotated[
        str,
        typer.Option(
            help="MODEL: a cross-encoder, or an encoder to make one of; or yesno:MODEL, a decoder"
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder for the teacher")],
    candidates: Annotated[
        Path | None,
        typer.Option(help="TREC run file of the split: the negatives; needed without a store"),
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
        typer.Option(
            min=1,
            metavar="RANK",
            help="of yesno:MODEL, train LoRA adapters of this rank and leave the model as it is; "
            "needs the extra `lora`",
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="their scale is alpha/rank; default: 2 × rank")
    ] = None,
    lora_targets: Annotated[
        str, typer.Option(help="layers that get adapters, such as q_proj,v_proj")
    ] = ALL_LINEAR,
    split: Split = "train",
    steps: Annotated[
        int, typer.Option(min=1, help="optimizer steps of 8 queries × 8 documents")
    ] = 150,
    max_length: Annotated[
        int | None,
        typer.Option(
            help="tokens of a pair when it is used (of a decoder: of a passage); default 256"
        ),
    ] = None,
    layers: Layers = None,
    seed: int = 0,
    set_: Settings = None,
) -> None:
    """Fine-tune a teacher on judged queries with mined negatives, or on stored scores.

    A cross-encoder, or a decoder that is asked yes or no. Started again after it was killed, the
    command goes on from its last checkpoint.
    """
    from retrieval_kd.config.training import TrainingStage
    from retrieval_kd.data.collection import open_collection
    from retrieval_kd.pipeline.pools import stage_pools
    from retrieval_kd.pipeline.stored_ensemble import StoredEnsemble
    from retrieval_kd.schema import apply_overrides, as_input_error
    from retrieval_kd.teachers.spec import parse_spec
    from retrieval_kd.training.fit_teacher import fit_teacher as fit
    from retrieval_kd.training.objective.terms import parse_terms
    from retrieval_kd.training.trainer.checkpoints import check_replaceable
    from retrieval_kd.training.trainer.settings import (
        FIT_DEFAULTS,
        LORA_DEFAULTS,
        TrainSettings,
        check_uncached,
    )

    decoder, terms = parse_spec(base).kind == "yesno", parse_terms(objective)
    kept = integers(layers) if layers else None
    adapters = lora_of(lora, lora_alpha, lora_targets)
    check_base(base, layers=kept, lora=adapters)
    if decoder and any(told.partition("=")[0].strip() == "max_tokens" for told in set_ or []):
        raise InputError(
            "a decoder is trained on what it is scored with",
            remedy="say how long passages are with --max-length, not max_tokens",
        )
    usual = LORA_DEFAULTS if adapters else FIT_DEFAULTS
    given = {**usual.model_dump(), "steps": steps, "seed": seed}
    settings = validate(TrainSettings, apply_overrides(given, set_ or []))
    as_input_error(check_uncached, settings.mini_batch_size)
    check_replaceable(out)
    opened, drops = open_collection(collection), Drops()
    teachers = stored_teachers(store, teacher, weight)
    ensemble = StoredEnsemble(opened, split, candidates, teachers, None, drops)
    stage = TrainingStage(objective=terms)
    ensemble.check_scores([stage])
    pools, _ = stage_pools(stage, ensemble, base, drops)
    drops.warn(str(candidates or store))
    record = fit(
        base,
        pools,
        opened.documents,
        out,
        layers=kept,
        lora=adapters,
        settings=settings,
        terms=terms,
        max_length=max_length,
    )
    print(f"{out}: {record['steps']} steps in {record['seconds']:.0f} s")


@fit_app.command()
def merge(
    adapter: Annotated[str, typer.Argument(help="folder of a LoRA adapter")],
    out: Annotated[Path, typer.Argument(help="folder for the merged model")],
) -> None:
    """Write a LoRA adapter and its base as one model, which needs neither.

    It is faster than the two. Its weights are float32: twice the size of a base in bfloat16.
    """
    from retrieval_kd.teachers.pointwise.merge_adapter import merge_adapter

    merge_adapter(adapter, out)
    print(out)


def lora_of(rank: int | None, alpha: float | None, targets: str) -> Lora | None:
    """The shape of adapters as it was told; none without a rank.

    Example:
        >>> lora_of(8, None, "q_proj,v_proj")
        Lora(rank=8, alpha=None, targets=['q_proj', 'v_proj'])

    Raises:
        InputError: the rest is told without a rank, or is no number above 0.
    """
    if rank is None:
        if alpha is not None or targets != ALL_LINEAR:
            raise InputError("adapters need a rank", remedy="add --lora 8")
        return None
    named = targets if targets == ALL_LINEAR else [name.strip() for name in targets.split(",")]
    return validate(Lora, {"rank": rank, "alpha": alpha, "targets": named})
