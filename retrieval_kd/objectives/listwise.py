"""Listwise objectives: the student's distribution over candidates follows the teacher's."""

from __future__ import annotations

from torch import Tensor

from retrieval_kd.objectives import masked


def kl(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""KL(softmax(t / τ_t) ‖ softmax(s / τ_s)) over each query's candidates, mean over queries.

    The form of RocketQAv2 (https://arxiv.org/abs/2110.07367, eq. 4, with the arguments in the order
    of distillation: the teacher's distribution first) and of ColBERTv2
    (https://arxiv.org/abs/2112.01488, section 3.2). Unlike
    `sentence_transformers.losses.DistillKLDivLoss` it is not multiplied by τ_s²: weight it instead.

    A teacher score of −inf on an unmasked candidate is a probability of zero: the candidate is in
    the student's denominator and is pushed down. That is how in-batch documents enter.

    Args:
        student: scores (B, N), any scale.
        teacher: scores (B, N), logits or normalised; −inf allowed.
        mask: (B, N), true where the candidate exists. Queries with fewer than two are left out.
        student_temperature: divides the student's scores; for cosine students 0.02–0.1.
        teacher_temperature: divides the teacher's scores; about the spread of a query's scores.

    Properties: zero iff the two distributions are equal; adding a constant to a row of either
    changes nothing; the order of candidates does not matter.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[2.0, 1.0, 0.0]])
        >>> kl(scores, scores + 5, torch.ones(1, 3, dtype=torch.bool)).item()
        0.0
    """
    target = masked.softmax(teacher / teacher_temperature, mask)  # (B, N)
    log_target = masked.log_softmax(teacher / teacher_temperature, mask)  # (B, N)
    log_student = masked.log_softmax(student / student_temperature, mask)  # (B, N)
    counted = mask & (target > 0)  # 0 · log 0 = 0
    difference = masked.fill(log_target, counted, 0.0) - masked.fill(log_student, counted, 0.0)
    return masked.row_mean((target * difference).sum(-1), mask.sum(-1) >= 2)
