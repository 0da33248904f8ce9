"""Contrastive objectives: relevant candidates, by judgments, against all others."""

from __future__ import annotations

import torch
from torch import Tensor

from retrieval_kd.objectives import masked


def positives(mask: Tensor, labels: Tensor | None) -> Tensor:
    """The relevant candidates (B, N): judged above zero, or column 0 without judgments."""
    if labels is not None:
        return mask & (labels > 0)  # (B, N)
    first = torch.zeros_like(mask)
    first[:, :1] = True
    return mask & first  # (B, N)


def infonce(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    student_temperature: float = 1.0,
) -> Tensor:
    r"""−log( e^{s⁺/τ} / (e^{s⁺/τ} + Σ_{d⁻} e^{s⁻/τ}) ), mean over positives, then queries.

    Oord et al. 2018, https://arxiv.org/abs/1807.03748, eq. 4. A query's other positives are left
    out of the denominator, so that a second relevant document is not pushed away. The teacher is
    not used.

    Example:
        >>> student = teacher = torch.zeros(1, 2)
        >>> infonce(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    scores = masked.fill(student / student_temperature, mask, 0.0)  # (B, N)
    positive = positives(mask, labels)  # (B, N)
    negative = mask & ~positive  # (B, N)
    negatives = torch.logsumexp(masked.fill(scores, negative, float("-inf")), -1, keepdim=True)
    has_negative = negative.any(-1, keepdim=True)  # (B, 1)
    negatives = torch.where(has_negative, negatives, torch.zeros_like(negatives))  # no NaN gradient
    losses = torch.nn.functional.softplus(negatives - scores)  # (B, N)
    per_query = masked.fill(losses, positive, 0.0).sum(-1) / positive.sum(-1).clamp(min=1)  # (B,)
    return masked.mean(per_query, positive.any(-1) & has_negative.squeeze(-1))


def weighted_infonce(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""`infonce` of p⁺ s⁺ and (1 − p⁻) s⁻, where p = σ(t / τ_t).

    D2LLM, Liao et al. 2024, https://arxiv.org/abs/2406.17262, "Contrastive Imitation": the surer
    the teacher that a negative is irrelevant, the more its score counts. As in the released code
    the weights multiply the scores inside the exponent. There p is the probability of "yes" against
    "no", a sigmoid of the difference of their logits, and the sum is also divided by the number of
    negatives; here the term's weight does that. Zero is a neutral score on both sides: a shift of
    either matrix counts.

    Example:
        >>> student, teacher = torch.ones(1, 2), torch.zeros(1, 2)
        >>> weighted_infonce(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    probability = torch.sigmoid(masked.fill(teacher, mask, 0.0) / teacher_temperature)  # (B, N)
    weight = torch.where(positives(mask, labels), probability, 1 - probability)
    scores = weight * masked.fill(student, mask, 0.0)  # (B, N)
    return infonce(scores, teacher, mask, labels=labels, student_temperature=student_temperature)


def soft_nearest_neighbour(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    student_temperature: float = 1.0,
) -> Tensor:
    r"""−log( Σ_{d⁺} e^{s⁺/τ} / Σ_d e^{s/τ} ), mean over queries.

    Frosst et al. 2019, https://arxiv.org/abs/1902.01889, eq. 1, on scores: the form that Syntriever
    trains its first stage with (Kim & Baek 2025, https://arxiv.org/abs/2502.03824). One near
    positive is enough; `infonce`, which it equals with a single positive, wants every positive
    near. The teacher is not used.

    Example:
        >>> student, labels = torch.zeros(1, 4), torch.tensor([[1, 0, 1, 0]])
        >>> mask = torch.ones(1, 4, dtype=torch.bool)
        >>> soft_nearest_neighbour(student, student, mask, labels=labels).item()
        0.6931471824645996
    """
    positive = positives(mask, labels)  # (B, N)
    counted = positive.any(-1) & (mask & ~positive).any(-1)  # (B,)
    log_probability = masked.log_softmax(student / student_temperature, mask)  # (B, N)
    # rows without a positive get finite numbers, so that no NaN reaches a gradient
    near = torch.where(counted[:, None], positive, mask.any(-1, keepdim=True))
    log_probability = masked.fill(log_probability, mask, 0.0)
    of_positives = masked.fill(log_probability, near, float("-inf")).logsumexp(-1)  # (B,)
    return masked.mean(-of_positives, counted)


def label_smoothing(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    student_temperature: float = 1.0,
    smoothing: float = 0.1,
) -> Tensor:
    r"""−Σ_i ((1 − ε) y_i + ε / N) log softmax(s / τ_s)_i, y uniform over the positives.

    Szegedy et al. 2015, https://arxiv.org/abs/1512.00567, section 7. It is what a uniform teacher
    would teach: the control for "is it the teacher, or just the softness". A teacher fitted with it
    loses some of what it could pass on (Chandrasegaran et al. 2022,
    https://arxiv.org/abs/2206.14532). The teacher is not used. With ε = 0 and one positive it
    equals `infonce`.

    Args:
        smoothing: ε.

    Example:
        >>> student = teacher = torch.zeros(1, 2)
        >>> label_smoothing(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    positive = positives(mask, labels)  # (B, N)
    hard = positive.to(student.dtype)
    hard = hard / hard.sum(-1, keepdim=True).clamp(min=1)  # (B, N)
    uniform = mask.to(hard.dtype) / mask.sum(-1, keepdim=True).clamp(min=1)  # (B, N)
    target = (1 - smoothing) * hard + smoothing * uniform  # (B, N)
    log_student = masked.log_softmax(student / student_temperature, mask)  # (B, N)
    per_query = -(target * masked.fill(log_student, mask, 0.0)).sum(-1)  # (B,)
    return masked.mean(per_query, positive.any(-1) & (mask.sum(-1) >= 2))
