"""Fine-tunes a teacher on judged queries with mined negatives, or on stored scores.

So that a teacher can be had without a model hub, so that it knows the user's domain, and so that a
big one or several can be had cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.data.texts import Texts
from retrieval_kd.models.lora import Lora
from retrieval_kd.students.cross_encoder import make_cross_encoder
from retrieval_kd.teachers.spec import check_base, parse_spec
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_cross_encoder import train_cross_encoder
from retrieval_kd.training.train_yes_no import fit_yes_no
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
) -> dict[str, Any]:
    """Train a re-ranker on slates and save it in `out`; gives what `out/training.json` holds.

    The default objective is a softmax over one relevant and N − 1 mined candidates (localised
    contrastive estimation, Gao et al. 2021, https://arxiv.org/abs/2101.08751, eq. 4). An encoder
    without a classification head gets a new one, seeded.

    Args:
        model_spec: a cross-encoder, or any encoder to make one of; or `yesno:MODEL`, a decoder, see
            `yes_no.fit_yes_no`.
        layers: layers to keep of a cross-encoder, for a cheaper teacher; all, if none are given.
        lora: adapters to train of a decoder, instead of all its weights.
        pools: queries with first-stage candidates, from `slates.build_pools`.
        max_length: tokens of a pair when the teacher is used, 256 by default (in training it is
            `settings.max_tokens`); of a decoder, tokens of a passage, always.

    Raises:
        InputError: no pool has what the objective learns from, or the base is not made for this.
    """
    check_base(model_spec, layers=layers, lora=lora)
    if parse_spec(model_spec).kind == "yesno":
        how: dict[str, Any] = {"settings": settings, "terms": terms, "max_length": max_length}
        return fit_yes_no(model_spec, pools, documents, out, lora=lora, **how)
    model = make_cross_encoder(model_spec, layers, max_length=max_length, seed=settings.seed)
    return train_cross_encoder(model, pools, documents, terms, settings, out)
