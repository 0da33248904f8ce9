"""Objectives on orders: the likelihood of the teacher's order under the student's scores.

Both sum log( e^{s_i} / (e^{s_i} + Σ_{j: t_j < t_i} e^{s_j}) ): candidate i is chosen before those
that the teacher ranks lower. Candidates that the teacher ties are not compared; without ties this
is the Plackett–Luce model. Candidates with −inf rank below all scores: they are in the denominators
and are never chosen themselves. Queries without any order are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrieval_kd.objectives import masked


def partial_plackett_luce(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    top_k: int = 3,
) -> Tensor:
    r"""−log likelihood of the first `top_k` places of the teacher's order, mean over queries.

    The partial Plackett–Luce model of Syntriever (Kim & Baek 2025,
    https://arxiv.org/abs/2502.03824, stage two): the order of the rest does not count. Its
    stay-close regulariser is a term of its own (`kl` with the earlier student as the teacher). Only
    the teacher's order counts.

    Args:
        top_k: number of places; from N−1 on this is ListMLE (Xia et al. 2008), 1 is "the best
            before all others".

    Example:
        >>> student, teacher = torch.zeros(1, 4), torch.tensor([[4.0, 3.0, 2.0, 1.0]])
        >>> partial_plackett_luce(student, teacher, torch.ones(1, 4).bool(), top_k=1).item()
        1.3862943649291992
    """
    log_choices, rows = _log_choices(student / student_temperature, teacher, mask)
    above = masked.preferred(teacher, mask).sum(-2)  # (B, N), number that the teacher ranks higher
    chosen = masked.fill(log_choices, mask & (above < top_k), 0.0)  # (B, N)
    return masked.mean(-chosen.sum(-1), rows)


def rank_contrast(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""−Σ_i softmax(t / τ_t)_i · log( e^{s_i/τ_s} / (e^{s_i/τ_s} + Σ_{t_j < t_i} e^{s_j/τ_s}) ).

    The stabilised distillation of LLM-Embedder (Zhang et al. 2023,
    https://arxiv.org/abs/2310.07554): every candidate in turn is the positive against those ranked
    lower, weighted by its normalised reward; mean over queries. As in its released code
    (FlagEmbedding, research/llm_embedder), the weights are the softmax of the rewards, and in-batch
    documents are among the lower ranked. There τ_s is 0.01, on cosines.

    Example:
        >>> teacher = torch.tensor([[0.0, float("-inf")]])
        >>> rank_contrast(torch.zeros(1, 2), teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    log_choices, rows = _log_choices(student / student_temperature, teacher, mask)
    weights = masked.softmax(teacher / teacher_temperature, mask)  # (B, N)
    weights = masked.fill(weights, rows.unsqueeze(-1), 0.0)  # a row without scores has none
    return masked.mean(-(weights * log_choices).sum(-1), rows)


def _log_choices(student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """log P(i before all lower ones) (B, N), 0 for the lowest; rows (B,) with an order."""
    lower = masked.preferred(teacher, mask)  # (B, N, N), i above j
    own = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)  # (N, N)
    scores = masked.fill(student, mask, 0.0)  # (B, N)
    rivals = masked.fill(scores.unsqueeze(-2), lower | own, float("-inf"))  # (B, N, N)
    return scores - torch.logsumexp(rivals, -1), masked.varied(teacher, mask)
