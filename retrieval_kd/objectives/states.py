"""Objectives on states inside the models: of layers, or of a query read with a document.

The teacher's states are taken as they are: detach them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from retrieval_kd.objectives import masked


def hidden_states(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    attention: Tensor,
    *,
    layers: Sequence[tuple[int, int]],
    distance: Literal["mse", "cosine"] = "mse",
) -> Tensor:
    r"""Mean over pairs (i, j) of layers of the distance of s_i from t_j, over real tokens.

    "mse" is TinyBERT's hidden-state loss (Jiao et al. 2019, https://arxiv.org/abs/1909.10351, eq.
    8), "cosine", 1 − cos of each token, is DistilBERT's (Sanh et al. 2019,
    https://arxiv.org/abs/1910.01108, section 2). Both models must cut texts into the same tokens.

    Args:
        student: hidden states (B, T, D) of each layer, as `output_hidden_states` returns them: the
            embeddings first.
        teacher: hidden states (B, T, D) of the same tokens.
        attention: mask (B, T), true for real tokens.
        layers: pairs (student's layer, teacher's layer), for example `[(1, 2), (2, 4), (3, 6)]`.

    Example:
        >>> student, teacher = [torch.zeros(1, 2, 3)] * 2, [torch.ones(1, 2, 3)] * 4
        >>> attention = torch.tensor([[True, False]])
        >>> hidden_states(student, teacher, attention, layers=[(0, 0), (1, 3)]).item()
        1.0
    """
    keep = attention.bool()  # (B, T)
    losses = []
    for i, j in layers:
        own = masked.fill(student[i], keep[..., None], 1.0)  # (B, T, D)
        other = masked.fill(teacher[j], keep[..., None], 1.0)  # (B, T, D)
        if distance == "mse":
            per_token = (own - other).square().mean(-1)  # (B, T)
        else:
            per_token = 1 - cosine_similarity(own, other, dim=-1)
        losses.append(masked.mean(per_token, keep))
    return torch.stack(losses).mean()


def feature_imitation(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    r"""Mean over pairs i, j of a query's candidates of (cos(s_i, s_j) − cos(t_i, t_j))², then
    queries.

    D2LLM, Liao et al. 2024, https://arxiv.org/abs/2406.17262, "Feature Imitation": s_i is the
    student's interaction feature of the query with candidate i (the input of its head's logit),
    t_i the teacher's state before its answer. Similarities are compared, so widths may differ.

    Args:
        student: features (B, N, D).
        teacher: features (B, N, E).
        mask: (B, N), true where the candidate exists. Queries with fewer than two are left out.

    Example:
        >>> student, teacher = torch.ones(1, 2, 3), torch.eye(2)[None]
        >>> round(feature_imitation(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item(), 6)
        0.5
    """
    pairs = mask[:, :, None] & mask[:, None, :]  # (B, N, N)
    squares = (_similarities(student, mask) - _similarities(teacher, mask)).square()  # (B, N, N)
    per_query = masked.fill(squares, pairs, 0.0).sum((1, 2)) / mask.sum(-1).clamp(min=1) ** 2
    return masked.mean(per_query, mask.sum(-1) >= 2)


def _similarities(features: Tensor, mask: Tensor) -> Tensor:
    """Cosines (B, N, N) of all pairs of features (B, N, D)."""
    unit = normalize(masked.fill(features, mask[..., None], 1.0), dim=-1)  # (B, N, D)
    return unit @ unit.transpose(1, 2)
