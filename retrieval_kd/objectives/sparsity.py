"""The regulariser that keeps a sparse student's vectors over the vocabulary short."""

from __future__ import annotations

from torch import Tensor

__all__ = ["flops"]


def flops(vectors: Tensor, *, progress: float = 1.0, ramp: float = 0.33) -> Tensor:
    r"""Σ_j ( mean_i |w_ij| )²: the expected cost of a dot product of sparse vectors.

    Paria et al. 2020, https://arxiv.org/abs/2004.05665, as in SPLADE
    (https://arxiv.org/abs/2107.05720, eq. 4), whose weight rises with the square of the step until
    `ramp` of the training is over (section 5.1: 50k of 150k steps).

    Args:
        vectors: (n, V) weights of words.
        ramp: share of the steps after which the regulariser has its full weight.

    Example:
        >>> import torch
        >>> flops(torch.tensor([[2.0, 0.0], [0.0, 0.0]])).item()
        1.0
    """
    risen = min(1.0, progress / ramp) ** 2 if ramp > 0 else 1.0
    return risen * vectors.abs().mean(0).square().sum()
