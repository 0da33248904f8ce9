"""Listwise objectives: divergences between the student's and the teacher's distribution.

p = softmax(t / τ_t) and q = softmax(s / τ_s) over a query's candidates. A candidate with t = −inf
has p = 0: it is in the student's denominator and is pushed down. That is how in-batch documents
enter. All are zero if and only if the two distributions are equal. `taid` and `dynamic_difficulty`
adapt as the student learns: the target, or the weight of each query.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from retrieval_kd.errors import InputError
from retrieval_kd.objectives import masked

# Stands for log 0: e^−10000 is 0 in every float type, and unlike −inf it has a gradient.
NEVER = -1e4


def log_distributions(
    student: Tensor, teacher: Tensor, mask: Tensor, student_temperature: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """log p and log q, (B, N) each; `NEVER` where that is log 0."""
    log_p = masked.log_softmax(teacher / temperature, mask)  # (B, N)
    log_q = masked.log_softmax(student / student_temperature, mask)  # (B, N)
    scored = masked.scored(teacher, mask)  # (B, N)
    return masked.fill(log_p, scored, NEVER), masked.fill(log_q, mask, NEVER)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) of each row, (B,)."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log(share · p + (1 − share) · q), (B, N)."""
    if not 0 < share < 1:
        raise InputError(
            f"a mixture of teacher and student has a share of {share}",
            remedy="give alpha or beta between 0 and 1; at 0 and 1 use kl or reverse_kl",
        )
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))


def kl(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""KL(p ‖ q), mean over queries.

    The form of RocketQAv2 (https://arxiv.org/abs/2110.07367, eq. 4, with the arguments in the order
    of distillation: the teacher's distribution first) and of ColBERTv2
    (https://arxiv.org/abs/2112.01488, section 3.2). Its gradient is that of ListNet's top-one
    cross-entropy (Cao et al. 2007). Unlike `sentence_transformers.losses.DistillKLDivLoss` it is
    not multiplied by τ_s²: weight it instead.

    Example:
        >>> scores = torch.tensor([[2.0, 1.0, 0.0]])
        >>> kl(scores, scores + 5, torch.ones(1, 3, dtype=torch.bool)).item()
        0.0
    """
    p, q = log_distributions(student, teacher, mask, student_temperature, teacher_temperature)
    return masked.mean(divergence(p, q), masked.taught(teacher, mask))


def reverse_kl(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    floor: float = 1e-4,
) -> Tensor:
    r"""KL(q ‖ p), mean over queries: the student seeks one mode.

    The direction of MiniLLM (Gu et al. 2023, https://arxiv.org/abs/2306.08543). A query's
    candidates can be enumerated, so it is exact and needs no policy gradient.

    Args:
        floor: p of a candidate with −inf, as a share of all scored ones together, where p = 0 would
            be an infinite loss; log(1/floor) is the price of the student's probability mass there.

    Example:
        >>> scores = torch.tensor([[2.0, 1.0, 0.0]])
        >>> reverse_kl(scores, scores, torch.ones(1, 3, dtype=torch.bool)).item()
        0.0
    """
    p, q = log_distributions(student, teacher, mask, student_temperature, teacher_temperature)
    floored = masked.fill(p, masked.scored(teacher, mask), math.log(floor))  # (B, N)
    p = masked.fill(masked.log_softmax(floored, mask), mask, NEVER)  # (B, N)
    return masked.mean(divergence(q, p), masked.taught(teacher, mask))


def jsd(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    beta: float = 0.5,
) -> Tensor:
    r"""β·KL(p ‖ m) + (1−β)·KL(q ‖ m) with m = β·p + (1−β)·q, mean over queries.

    The generalised Jensen–Shannon divergence of GKD (Agarwal et al. 2023,
    https://arxiv.org/abs/2306.13649), at most log 2. Divided by β it approaches KL(p ‖ q) for
    β → 0, divided by 1−β it approaches KL(q ‖ p) for β → 1.

    Args:
        beta: the teacher's share of the mixture, strictly between 0 and 1.

    Example:
        >>> student, teacher = torch.tensor([[0.0, -99.0]]), torch.tensor([[-99.0, 0.0]])
        >>> jsd(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    p, q = log_distributions(student, teacher, mask, student_temperature, teacher_temperature)
    m = mixture(p, q, beta)  # (B, N)
    per_query = beta * divergence(p, m) + (1 - beta) * divergence(q, m)  # (B,)
    return masked.mean(per_query, masked.taught(teacher, mask))


def skew_kl(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    alpha: float = 0.1,
) -> Tensor:
    r"""KL(p ‖ α·p + (1−α)·q), mean over queries.

    DistiLLM, Ko et al. 2024, https://arxiv.org/abs/2402.03898; α = 0.1 as there. It is at most
    log(1/α), however wrong the student: early gradients cannot explode.

    Args:
        alpha: the teacher's share of the mixture, strictly between 0 and 1.

    Example:
        >>> student, teacher = torch.tensor([[0.0, -99.0]]), torch.tensor([[-99.0, 0.0]])
        >>> round(skew_kl(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item(), 4)
        2.3026
    """
    p, q = log_distributions(student, teacher, mask, student_temperature, teacher_temperature)
    per_query = divergence(p, mixture(p, q, alpha))  # (B,)
    return masked.mean(per_query, masked.taught(teacher, mask))


def skew_pair(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    alpha: float = 0.1,
    progress: float = 0.0,
) -> Tensor:
    r"""½·( (2−β)·KL(p ‖ α·p + (1−α)·q) + β·KL(q ‖ (1−α)·p + α·q) ), β rising from 1 to 1.5.

    DistiLLM-2, Ko et al. 2025, https://arxiv.org/abs/2503.07067. There the first divergence is
    taken on the teacher's outputs and the second on the student's; a score matrix has one set of
    candidates, so both read the same ones (draw them from both rankings to come closer). β is
    1 + ½·min(1, 2·progress), as in implementations of the paper. Its α per sample is not followed.

    Args:
        alpha: the skew of both divergences, strictly between 0 and 1.

    Example:
        >>> scores = torch.tensor([[2.0, 1.0, 0.0]])
        >>> abs(skew_pair(scores, scores, torch.ones(1, 3).bool(), progress=0.5).item()) < 1e-6
        True
    """
    p, q = log_distributions(student, teacher, mask, student_temperature, teacher_temperature)
    beta = 1 + 0.5 * min(1.0, 2 * progress)
    forward = divergence(p, mixture(p, q, alpha))  # (B,)
    backward = divergence(q, mixture(p, q, 1 - alpha))  # (B,)
    per_query = ((2 - beta) * forward + beta * backward) / 2  # (B,)
    return masked.mean(per_query, masked.taught(teacher, mask))


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
