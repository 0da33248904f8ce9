"""The objective on the scores of several layers, L score matrices (B, N) for each side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retrieval_kd.objectives.contrastive import infonce
from retrieval_kd.objectives.listwise import kl

__all__ = ["layer_relevance"]


def layer_relevance(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    layer_temperature: float = 1.0,
) -> Tensor:
    r"""Σ_l w_l · `kl`(s_l, t_l), where w = softmax(−`infonce`(t_l) / τ_w) over the layers l.

    LEAD, Sun et al. 2022, https://arxiv.org/abs/2212.05225: the vectors of each chosen layer give
    scores just as the last layer's do, so a student layer learns a teacher layer's ranking whatever
    their widths and vocabularies. Layers that rank well by themselves weigh more; as in the
    released code the weights come from the teacher's layers and carry no gradient.

    Args:
        student: scores (B, N) by each of L layers, or one tensor (L, B, N).
        teacher: scores (B, N) by each of as many layers, in the same order.
        teacher_temperature: divides the teacher's scores in the target, not in the weights.
        layer_temperature: τ_w; the higher, the more alike the weights.

    Example:
        >>> scores = torch.randn(3, 2, 4)
        >>> layer_relevance(scores, scores + 1, torch.ones(2, 4, dtype=torch.bool)).item() < 1e-6
        True
    """
    tau_s, tau_t = student_temperature, teacher_temperature
    losses, qualities = [], []
    for s, t in zip(student, teacher, strict=True):
        losses.append(kl(s, t, mask, student_temperature=tau_s, teacher_temperature=tau_t))
        qualities.append(-infonce(t.detach(), t, mask, labels=labels))
    weights = torch.softmax(torch.stack(qualities) / layer_temperature, 0)  # (L,)
    return (weights * torch.stack(losses)).sum()
