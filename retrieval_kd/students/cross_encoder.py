"""The cross-encoder student: a smaller re-ranker, which reads query and document together.

It has no vectors to search by: it scores each query's own slate (`training/train_cross_encoder.py`)
and is evaluated by re-ranking the first stage's candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers import CrossEncoder

from retrieval_kd.models.layers import check_survives_saving, keep_layers
from retrieval_kd.models.load import load_cross_encoder, pair_length


def make_cross_encoder(
    model_spec: str,
    layers: Sequence[int] | None = None,
    *,
    max_length: int | None = None,
    seed: int = 0,
) -> CrossEncoder:
    """Make a float32 cross-encoder with one logit from some layers of a model (none: all).

    Args:
        model_spec: a cross-encoder, or any encoder, which gets a new head.
        max_length: tokens of a query and a document together; none: 256, or the model's own.
        seed: for a new head.

    Raises:
        InputError: the model has no such layer, or its layers cannot be found.
    """
    torch.manual_seed(seed)
    length = pair_length(model_spec, max_length)
    model = load_cross_encoder(model_spec, max_length=length, dtype=torch.float32)
    if layers is not None:
        keep_layers(model, list(layers))
        check_survives_saving(model, list(layers))
    return model
