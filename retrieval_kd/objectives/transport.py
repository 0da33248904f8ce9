"""Transport objectives: the cost of turning the student's distributions into the teacher's.

Both compare probabilities rank by rank instead of candidate by candidate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retrieval_kd.objectives import masked


def sinkhorn(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    regularisation: float = 0.1,
    iterations: int = 20,
) -> Tensor:
    r"""Σ_ab P_ab C_ab / B with C_ab = ‖softmax(s_a / τ_s) − softmax(t_b / τ_t)‖₁ over queries a, b.

    P is the plan of entropy-regularised transport between the batch's B student and B teacher
    distributions, all of equal weight: e^{−C/ε}, rows and columns scaled in turn to sum to 1.
    SinKD, Cui et al. 2024, https://arxiv.org/abs/2402.17110, batch-wise; cost, ε = 0.1 and 20
    iterations are those of the released code, the gradient goes through the iterations there too.

    SinKD's classes are the same for all rows. The candidates of two queries are not, so each
    query's are sorted by the teacher first, ties by the student: C compares them rank by rank. It
    is not zero where student and teacher agree, except for a single query.

    Args:
        regularisation: ε; the smaller, the closer to exact transport and the more iterations.
        iterations: scalings of rows and columns.

    Example:
        >>> student, teacher = torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> sinkhorn(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        1.0
    """
    scored = masked.scored(teacher, mask)  # (B, N)
    p = masked.softmax(teacher / teacher_temperature, scored)  # (B, N)
    q = masked.softmax(student / student_temperature, mask)  # (B, N)
    order = _teacher_order(student, teacher, mask)  # (B, N)
    taught = masked.taught(teacher, mask)  # (B,)
    p, q = p.gather(-1, order)[taught], q.gather(-1, order)[taught]  # (R, N)
    cost = (q[:, None, :] - p[None, :, :]).abs().sum(-1)  # (R, R)
    log_plan = -cost / regularisation  # (R, R)
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(1, keepdim=True)
        log_plan = log_plan - log_plan.logsumexp(0, keepdim=True)
    return (log_plan.exp() * cost).sum() / taught.sum().clamp(min=1)


def sorted_probability(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""Σ_k |p_(k) − q_(k)|, the k-th largest of softmax(t / τ_t) and softmax(s / τ_s); mean over
    queries.

    Universal Logit Distillation, Boizard et al. 2024, https://arxiv.org/abs/2402.12030: the
    Wasserstein distance if any candidate may become any other at the same cost. It teaches how
    peaked a distribution is, not which candidate is first, so it is a regulariser beside another
    term. It is at most 2.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 99.0]]), torch.tensor([[7.0, 7.0]])
        >>> sorted_probability(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        1.0
    """
    p = masked.softmax(teacher / teacher_temperature, masked.scored(teacher, mask))  # (B, N)
    q = masked.softmax(student / student_temperature, mask)  # (B, N)
    p, q = p.sort(descending=True).values, q.sort(descending=True).values
    return masked.mean((p - q).abs().sum(-1), masked.taught(teacher, mask))


def _teacher_order(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Columns (B, N) by falling teacher score, then student score; −inf, then masked ones last."""
    lowest = torch.finfo(teacher.dtype).min
    keys = masked.fill(teacher.detach().clamp(min=lowest), mask, float("-inf"))  # (B, N)
    by_student = masked.fill(student.detach(), mask, 0.0).argsort(dim=-1, descending=True)
    by_teacher = keys.gather(-1, by_student).argsort(dim=-1, descending=True, stable=True)
    return by_student.gather(-1, by_teacher)
