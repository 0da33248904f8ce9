"""Fine-tunes a teacher on judged queries with mined negatives, or on stored scores.

This makes a teacher without a model hub, adapts one to the user's domain, or distils big teachers
into a cheaper one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval_kd.data.texts import Texts
from retrieval_kd.models.lora import Lora
from retrieval_kd.students.make import make_cross_encoder
from retrieval_kd.teachers.spec import check_base, parse_spec
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.job import Groups, TrainingJob
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_cross_encoder import train_cross_encoder
from retrieval_kd.training.train_yes_no import train_yes_no
from retrieval_kd.training.trainer.settings import FIT_DEFAULTS, TrainSettings


def fit_teacher(
    model_spec: str,
    pools: Sequence[Pool],
    documents: Texts,
    out: Path,
    *,
    layers: Sequence[int] | None = None,
    lora: Lora | None = None,
    settings: TrainSettings = FIT_DEFAULTS,
    terms: Sequence[Term] = (Term(name="infonce"),),
    max_length: int | None = None,
    collections: Groups | None = None,
) -> dict[str, Any]:
    """Train a re-ranker on slates and save it in `out`.

    The default objective is a softmax over one relevant and N − 1 mined candidates (localised
    contrastive estimation, Gao et al. 2021, https://arxiv.org/abs/2101.08751, eq. 4). An encoder
    without a classification head gets a new one, initialised from the seed.

    Args:
        model_spec: a cross-encoder, or any encoder to make one from; or `yesno:MODEL`, a decoder,
            see `train_yes_no`.
        layers: layers of a cross-encoder to keep, for a cheaper teacher. By default all.
        lora: adapters of a decoder to train instead of all its weights.
        pools: queries with first-stage candidates, from `build_pools`.
        max_length: maximum number of tokens of a pair when the teacher scores, 256 by default (in
            training it is `settings.max_tokens`); for a decoder, of a passage, in training too.
        collections: the pools of each of several collections, from `join_pools`.

    Returns:
        The content of `out/training.json`.

    Raises:
        InputError: the pools lack what the objective needs, or the base does not fit the options.
    """
    check_base(model_spec, layers=layers, lora=lora)
    groups = collections or {}
    learnt = {name: stop - start for name, (start, stop, _) in groups.items()}
    made = {"collections": learnt} if learnt else {}
    job = TrainingJob(None, pools, documents, terms, settings, out, groups=groups, made=made)
    if parse_spec(model_spec).kind == "yesno":
        return train_yes_no(model_spec, job, lora=lora, max_length=max_length)
    model = make_cross_encoder(model_spec, layers, max_length=max_length, seed=settings.seed)
    return train_cross_encoder(replace(job, student=model))
