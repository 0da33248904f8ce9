"""Fine-tunes a cross-encoder teacher on judged queries with mined negatives.

So that a teacher can be had without a model hub, and so that it knows the user's domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.data.texts import Texts
from retrieval_kd.students.cross_encoder import make_cross_encoder
from retrieval_kd.training.pairs import train_cross_encoder
from retrieval_kd.training.settings import FIT_DEFAULTS, TrainSettings
from retrieval_kd.training.slates import Pool
from retrieval_kd.training.terms import Term


def fit_teacher(
    model_spec: str,
    pools: Sequence[Pool],
    documents: Texts,
    out: Path,
    *,
    layers: Sequence[int] | None = None,
    settings: TrainSettings = FIT_DEFAULTS,
    terms: Sequence[Term] = (Term(name="infonce"),),
    max_length: int | None = None,
) -> dict[str, Any]:
    """Train a cross-encoder on slates and save it in `out`; gives what `out/training.json` holds.

    The default objective is a softmax over one relevant and N − 1 mined candidates (localised
    contrastive estimation, Gao et al. 2021, https://arxiv.org/abs/2101.08751, eq. 4). An encoder
    without a classification head gets a new one, seeded.

    Args:
        model_spec: a cross-encoder, or any encoder to make one of.
        layers: layers to keep of it, for a cheaper teacher; all, if none are given.
        pools: judged queries with first-stage candidates, from `slates.build_pools`.
        max_length: tokens of a pair when the teacher is used, 256 by default. In training it is
            `settings.max_tokens`.

    Raises:
        InputError: no pool has a judged relevant document.
    """
    model = make_cross_encoder(model_spec, layers, max_length=max_length, seed=settings.seed)
    return train_cross_encoder(model, pools, documents, terms, settings, out)
