"""Forms of `kl` that adapt as the student learns: its target, or the weight of each query."""

from __future__ import annotations

import torch
from torch import Tensor

from retrieval_kd.objectives import masked
from retrieval_kd.objectives.listwise import divergence, kl, log_distributions


def taid(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    progress: float = 1.0,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    start: float = 0.4,
    end: float = 1.0,
) -> Tensor:
    r"""KL(softmax((1 − α) s' / τ_s + α t / τ_t) ‖ softmax(s / τ_s)), s' = s without gradient.

    TAID, Shing et al. 2025, https://arxiv.org/abs/2501.16937: the target moves from near the
    student to the teacher, α in a straight line from `start` to `end` (defaults of the released
    code). There α may run ahead of the line, by at most 5·10⁻⁴ a step, when the loss falls; that
    needs the losses of earlier steps, and is left out. With α = 1 it is `kl`.

    Args:
        start: α at progress 0.
        end: α at progress 1.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[4.0, 0.0]])
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> taid(student, teacher, mask, progress=0.0) < taid(student, teacher, mask, progress=1.0)
        tensor(True)
    """
    alpha = start + (end - start) * progress
    own = student.detach() / student_temperature  # (B, N)
    between = (1 - alpha) * own + alpha * teacher / teacher_temperature  # (B, N)
    target = masked.fill(between, masked.scored(teacher, mask), float("-inf"))
    return kl(student, target, mask, student_temperature=student_temperature)


def dynamic_difficulty(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    focus: float = 1.0,
) -> Tensor:
    r"""Mean over queries of (1 − e^{−KL_q})^γ · KL_q, where KL_q is the query's part of `kl`.

    Queries on which the student is still far from the teacher weigh up to 1, learnt ones near 0.
    Weighting by difficulty as it changes is the idea of dynamic contrastive distillation (Rao et
    al. 2022, https://arxiv.org/abs/2207.01426). The weight is not theirs but that of the focal loss
    (Lin et al. 2017, https://arxiv.org/abs/1708.02002, eq. 4), which this equals for a certain
    teacher: then e^{−KL} is the student's probability of the right candidate.

    Args:
        focus: γ; 0 is `kl`, and the higher it is, the more the hard queries count.

    Example:
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, float("-inf")]])
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> dynamic_difficulty(student, teacher, mask).item()  # 0.5 · log 2
        0.3465735912322998
    """
    p, q = log_distributions(student, teacher, mask, student_temperature, teacher_temperature)
    per_query = divergence(p, q)  # (B,)
    tiny = torch.finfo(per_query.dtype).tiny  # 0 ** γ has no gradient for γ < 1
    weight = (-torch.expm1(-per_query)).clamp(min=tiny) ** focus  # (B,)
    return masked.mean(weight * per_query, masked.taught(teacher, mask))
