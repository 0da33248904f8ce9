"""Contrastive objectives: candidates that are better, by judgments or teacher, against others."""

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
    documents are among the lower ranked. There τ_s is 0.01, on cosines. Candidates that the teacher
    ties are not compared, those with −inf are never a positive, and queries without any order are
    left out.

    Example:
        >>> teacher = torch.tensor([[0.0, float("-inf")]])
        >>> rank_contrast(torch.zeros(1, 2), teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    lower = masked.preferred(teacher, mask)  # (B, N, N), i above j
    own = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)  # (N, N)
    scores = masked.fill(student / student_temperature, mask, 0.0)  # (B, N)
    rivals = masked.fill(scores.unsqueeze(-2), lower | own, float("-inf"))  # (B, N, N)
    log_choices = scores - torch.logsumexp(rivals, -1)  # (B, N), 0 for the lowest
    rows = masked.varied(teacher, mask)  # (B,)
    weights = masked.softmax(teacher / teacher_temperature, mask)  # (B, N)
    weights = masked.fill(weights, rows.unsqueeze(-1), 0.0)  # a row without scores has none
    return masked.mean(-(weights * log_choices).sum(-1), rows)
