"""Pairwise objectives: differences between two candidates of one query."""

from __future__ import annotations

from torch import Tensor

from retrieval_kd.objectives import masked


def margin_mse(
    student: Tensor, teacher: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""Mean over negatives j of ((s_0 − s_j) / τ_s − (t_0 − t_j))².

    Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666, eq. 5, on slates instead of triples:
    column 0 is the positive, every other column one negative. Teacher scores must be raw logits;
    after a sigmoid all margins are at most 1. A cosine student needs τ_s < 1 to reach the margins
    of logits.

    Args:
        student: scores (B, N), column 0 the positive.
        teacher: raw logits (B, N).
        mask: (B, N), true where the candidate exists; a row whose column 0 is masked is left out.
        student_temperature: divides the student's scores.

    Properties: zero iff all margins agree; adding a constant to a row changes nothing; the order of
    the negatives does not matter.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 0.5]]), torch.tensor([[7.0, 4.0]])
        >>> margin_mse(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        6.25
    """
    pairs = mask[:, 1:] & mask[:, :1]  # (B, N-1)
    student_scores = masked.fill(student, mask, 0.0) / student_temperature
    teacher_scores = masked.fill(teacher, mask, 0.0)
    student_margin = student_scores[:, :1] - student_scores[:, 1:]  # (B, N-1)
    teacher_margin = teacher_scores[:, :1] - teacher_scores[:, 1:]  # (B, N-1)
    return masked.mean((student_margin - teacher_margin).square(), pairs)
