"""Regression objectives: the student reproduces the teacher's scores.

`mse` and `bce` do so candidate by candidate, `pearson` up to a linear function of a query's scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrieval_kd.objectives import masked


def mse(
    student: Tensor, teacher: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""Mean over candidates of (s / τ_s − t)²: the student reproduces the teacher's score.

    Distilled Sentence Embedding, Barkan et al. 2019, https://arxiv.org/abs/1908.05161, on the
    logit. A shift of the scores counts: a student without a bias of its own cannot follow a teacher
    whose scores are all negative. Candidates with −inf are left out.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
        >>> mse(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        2.0
    """
    scored = masked.scored(teacher, mask)  # (B, N)
    errors = masked.fill(student / student_temperature, scored, 0.0) - masked.fill(
        teacher, scored, 0.0
    )  # (B, N)
    return masked.mean(errors.square(), scored)


def bce(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""Mean over candidates of −p·log σ(s/τ_s) − (1−p)·log(1−σ(s/τ_s)), where p = σ(t/τ_t).

    Binary cross-entropy with soft targets (Hinton et al. 2015, https://arxiv.org/abs/1503.02531,
    section 2, for two classes). Both matrices are read as logits, where 0 means "as likely relevant
    as not", so adding a constant changes the loss. −inf is a target of 0. Where s/τ_s = t/τ_t the
    gradient is zero, but the loss is not.

    Example:
        >>> bce(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    targets = torch.sigmoid(masked.fill(teacher, mask, 0.0) / teacher_temperature)  # (B, N)
    logits = masked.fill(student, mask, 0.0) / student_temperature  # (B, N)
    losses = torch.nn.functional.softplus(logits) - targets * logits  # (B, N)
    return masked.mean(losses, mask)


def pearson(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    r"""1 − Pearson's correlation of s and t over a query's candidates, mean over queries.

    Rank imitation of D2LLM (Liao et al. 2024, https://arxiv.org/abs/2406.17262), over the positive
    and the hard negatives. It is zero if and only if one is a rising linear function of the other,
    so it has no temperatures: a positive factor on a row changes nothing. Candidates with −inf are
    left out, and queries where the student's or the teacher's scores are all alike.

    Example:
        >>> student, teacher = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 5.0]])
        >>> pearson(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        2.0
    """
    scored = masked.scored(teacher, mask)  # (B, N)
    rows = masked.varied(student, scored) & masked.varied(teacher, scored)  # (B,)
    s, t = _centred(student, scored), _centred(teacher, scored)  # (B, N)
    squares = masked.fill(s.square().sum(-1) * t.square().sum(-1), rows, 1.0)  # (B,)
    return masked.mean(1 - (s * t).sum(-1) / squares.sqrt(), rows)


def _centred(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores minus their row's mean (B, N); 0 at masked entries."""
    filled = masked.fill(scores, mask, 0.0)  # (B, N)
    mean = filled.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)  # (B, 1)
    return masked.fill(filled - mean, mask, 0.0)
