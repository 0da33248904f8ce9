"""Masked arithmetic that the objectives share.

A masked entry is replaced before it is used, so it changes neither a loss nor a gradient, NaN and
infinities included.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fill(values: Tensor, mask: Tensor, value: float) -> Tensor:
    """`values` where `mask` is true, `value` elsewhere; masked entries get zero gradient."""
    return torch.where(
        mask, values, torch.full((), value, dtype=values.dtype, device=values.device)
    )


def log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """log softmax over the unmasked entries of each row; −inf at masked ones and in empty rows.

    A row of −inf is empty too; like a masked entry it gets no gradient, where torch's would be NaN.
    """
    filled, empty = _logits(scores, mask)
    return fill(torch.log_softmax(filled, dim=-1), ~empty, float("-inf"))  # (B, N)


def softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """softmax over the unmasked entries of each row; 0 at masked ones and in empty rows."""
    filled, empty = _logits(scores, mask)
    return fill(torch.softmax(filled, dim=-1), mask & ~empty, 0.0)  # (B, N)


def _logits(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B, N), −inf at masked entries but 0 in rows without any other; those rows (B, 1)."""
    filled = fill(scores, mask, float("-inf"))  # (B, N)
    empty = (filled == float("-inf")).all(-1, keepdim=True)  # (B, 1)
    return fill(filled, ~empty, 0.0), empty


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the unmasked entries; 0, with zero gradient, if all are masked."""
    return fill(values, mask, 0.0).sum() / mask.sum().clamp(min=1)


def scored(teacher: Tensor, mask: Tensor) -> Tensor:
    """Candidates (B, N) with a teacher score; −inf is not one."""
    return mask & (teacher > float("-inf"))


def taught(teacher: Tensor, mask: Tensor) -> Tensor:
    """Rows (B,) with at least two candidates, one of them scored."""
    return (mask.sum(-1) >= 2) & scored(teacher, mask).any(-1)


def pairs(mask: Tensor) -> Tensor:
    """Pairs (B, N, N) of two different unmasked candidates i, j; each pair in both orders."""
    same = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)  # (N, N)
    return mask.unsqueeze(-1) & mask.unsqueeze(-2) & ~same


def preferred(teacher: Tensor, mask: Tensor) -> Tensor:
    """Pairs (B, N, N) with t_i > t_j; every score is above −inf, ties are not a pair."""
    return pairs(mask) & (teacher.unsqueeze(-1) > teacher.unsqueeze(-2))


def varied(scores: Tensor, mask: Tensor) -> Tensor:
    """Rows (B,) in which two candidates differ."""
    return preferred(scores, mask).any(-1).any(-1)


def differences(scores: Tensor, mask: Tensor) -> Tensor:
    """x_i − x_j for all pairs (B, N, N); masked entries count as 0."""
    filled = fill(scores, mask, 0.0)  # (B, N)
    return filled.unsqueeze(-1) - filled.unsqueeze(-2)
