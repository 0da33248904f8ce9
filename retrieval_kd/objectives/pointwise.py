"""Pointwise objectives: each candidate's score on its own."""

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
    scored = masked.known(teacher, mask)  # (B, N)
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
    section 2, for two classes). Both score matrices are read as logits, 0 is "as likely relevant as
    not", so a shift counts. −inf is a target of 0. At the teacher's scores the gradient is zero,
    the loss is not.

    Example:
        >>> bce(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    targets = torch.sigmoid(masked.fill(teacher, mask, 0.0) / teacher_temperature)  # (B, N)
    logits = masked.fill(student, mask, 0.0) / student_temperature  # (B, N)
    losses = torch.nn.functional.softplus(logits) - targets * logits  # (B, N)
    return masked.mean(losses, mask)
