"""Contrastive objectives: a relevant candidate against all others. They learn from judgments."""

from __future__ import annotations

import torch
from torch import Tensor

from retrieval_kd.objectives import masked


def infonce(
    student: Tensor, labels: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""−log( e^{s⁺/τ} / (e^{s⁺/τ} + Σ_{d⁻} e^{s⁻/τ}) ), mean over positives, then queries.

    Oord et al. 2018, https://arxiv.org/abs/1807.03748, eq. 4. A query's other positives are left
    out of the denominator, so that a second relevant document is not pushed away.

    Args:
        student: scores (B, N).
        labels: judged gains (B, N); above zero is relevant.
        mask: (B, N), true where the candidate exists. Queries without a relevant candidate, or
            without any other, are left out.
        student_temperature: divides the student's scores; for cosine students 0.02–0.1.

    Properties: adding a constant to a row changes nothing; the order of candidates does not matter.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[1, 0]])
        >>> infonce(torch.zeros(1, 2), labels, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    scores = masked.fill(student / student_temperature, mask, 0.0)  # (B, N)
    positive = mask & (labels > 0)  # (B, N)
    negative = mask & ~positive  # (B, N)
    negatives = torch.logsumexp(masked.fill(scores, negative, float("-inf")), -1, keepdim=True)
    has_negative = negative.any(-1, keepdim=True)  # (B, 1)
    negatives = torch.where(has_negative, negatives, torch.zeros_like(negatives))  # no NaN gradient
    losses = torch.nn.functional.softplus(negatives - scores)  # (B, N)
    per_query = masked.fill(losses, positive, 0.0).sum(-1) / positive.sum(-1).clamp(min=1)  # (B,)
    return masked.row_mean(per_query, positive.any(-1) & has_negative.squeeze(-1))
