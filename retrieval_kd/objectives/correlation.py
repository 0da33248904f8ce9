"""The objective on the correlation of two score matrices."""

from __future__ import annotations

from torch import Tensor

from retrieval_kd.objectives import masked


def pearson(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    r"""1 − Pearson's correlation of s and t over a query's candidates, mean over queries.

    Rank imitation of D2LLM (Liao et al. 2024, https://arxiv.org/abs/2406.17262), over the positive
    and the hard negatives. It is zero if and only if one is a rising linear function of the other,
    so it has no temperatures: a positive factor on a row changes nothing. Candidates with −inf are
    left out, and queries where the student's or the teacher's scores are all alike.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 5.0]])
        >>> pearson(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        2.0
    """
    scored = masked.known(teacher, mask)  # (B, N)
    rows = masked.varied(student, scored) & masked.varied(teacher, scored)  # (B,)
    s, t = _centred(student, scored), _centred(teacher, scored)  # (B, N)
    squares = masked.fill(s.square().sum(-1) * t.square().sum(-1), rows, 1.0)  # (B,)
    return masked.mean(1 - (s * t).sum(-1) / squares.sqrt(), rows)


def _centred(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores minus their row's mean (B, N); 0 at masked entries."""
    filled = masked.fill(scores, mask, 0.0)  # (B, N)
    mean = filled.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)  # (B, 1)
    return masked.fill(filled - mean, mask, 0.0)
