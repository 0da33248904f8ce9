"""Masked building blocks shared by all objectives. No objective lives here.

A masked entry may hold anything, NaN and infinities included: it is replaced before it is used, so
it changes neither a loss nor a gradient.
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
    """log softmax over the unmasked entries of each row; −inf at masked ones."""
    return torch.log_softmax(fill(scores, mask, float("-inf")), dim=-1)  # (B, N)


def softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """softmax over the unmasked entries of each row; 0 at masked ones and in empty rows."""
    probabilities = torch.softmax(fill(scores, mask, float("-inf")), dim=-1)  # (B, N)
    return torch.where(mask, probabilities, torch.zeros_like(probabilities))


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the unmasked entries; 0 (with zero gradient) if there are none."""
    return fill(values, mask, 0.0).sum() / mask.sum().clamp(min=1)


def row_mean(per_row: Tensor, rows: Tensor) -> Tensor:
    """Mean over the rows that count, `rows (B,)`."""
    return mean(per_row, rows)
