"""`rkd fit-teacher`: fine-tunes a teacher on judgments, or on stored teacher scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.config.training import TrainingStage
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.models.lora import Lora
from retrieval_kd.pipeline.pools import stage_pools
from retrieval_kd.pipeline.stored_ensemble import StoredEnsemble, StoredTeachers
from retrieval_kd.schema import as_input_error, validate
from retrieval_kd.teachers.spec import check_base, parse_spec
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.objective.terms import parse_terms
from retrieval_kd.training.trainer.checkpoints import at_work
from retrieval_kd.training.trainer.settings import (
    FIT_DEFAULTS,
    LORA_DEFAULTS,
    TrainSettings,
    check_uncached,
)


def fit_stored(
    collection: str,
    split: str,
    base: str,
    objective: str,
    settings: Mapping[str, Any],
    out: Path,
    *,
    teachers: StoredTeachers | None = None,
    candidates: Path | None = None,
    layers: Sequence[int] | None = None,
    lora: Lora | None = None,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Fine-tune a teacher on the queries of a split and save it in `out`, see `fit_teacher`.

    Args:
        settings: settings that differ from `FIT_DEFAULTS`, or with `lora` from `LORA_DEFAULTS`.
        teachers: the stored teachers; none, if only judgments are trained on.
        candidates: TREC run file; by default the documents that the teachers have scored.

    Returns:
        The content of `out/training.json`.

    Raises:
        InputError: something does not fit; before any model is loaded.
    """
    terms = parse_terms(objective)
    check_base(base, layers=layers, lora=lora)
    if parse_spec(base).kind == "yesno" and "max_tokens" in settings:
        raise InputError(
            "a decoder is trained on what it is scored with",
            remedy="say how long passages are with --max-length, not max_tokens",
        )
    defaults = LORA_DEFAULTS if lora else FIT_DEFAULTS
    chosen = validate(TrainSettings, {**defaults.model_dump(), **settings})
    as_input_error(check_uncached, chosen.mini_batch_size)
    with at_work(out):
        opened, drops = open_collection(collection), Drops()
        ensemble = StoredEnsemble(opened, split, candidates, teachers, None, drops)
        stage = TrainingStage(objective=terms)
        ensemble.check_scores([stage])
        pools, _ = stage_pools(stage, ensemble, base, drops)
        drops.warn(str(candidates or (teachers and teachers.store)))
        return fit_teacher(
            base,
            pools,
            opened.documents,
            out,
            layers=layers,
            lora=lora,
            settings=chosen,
            terms=terms,
            max_length=max_length,
        )
