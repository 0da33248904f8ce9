"""Pairwise objectives: differences between two candidates of one query.

Losses are means over all pairs of the batch. Here −inf is the lowest place in a teacher's order: a
scored candidate is preferred to it for certain, and two of them are not compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

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
        teacher: raw logits (B, N); candidates with −inf are left out, they have no margin.
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
    scored = masked.known(teacher, mask)  # (B, N)
    pairs = scored[:, 1:] & scored[:, :1]  # (B, N-1)
    student_scores = masked.fill(student, scored, 0.0) / student_temperature
    teacher_scores = masked.fill(teacher, scored, 0.0)
    student_margin = student_scores[:, :1] - student_scores[:, 1:]  # (B, N-1)
    teacher_margin = teacher_scores[:, :1] - teacher_scores[:, 1:]  # (B, N-1)
    return masked.mean((student_margin - teacher_margin).square(), pairs)


def margin_mse_pairs(
    student: Tensor, teacher: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""Mean over all pairs i, j of ((s_i − s_j) / τ_s − (t_i − t_j))².

    `margin_mse` without a positive: all pairs of candidates count, as in the listwise use of the
    loss of Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666. Equal to the mean squared
    error after each row's best shift, up to a factor.

    Args:
        student: scores (B, N).
        teacher: raw logits (B, N); candidates with −inf are left out, they have no margin.
        mask: (B, N), true where the candidate exists.
        student_temperature: divides the student's scores.

    Properties: zero iff all margins agree; adding a constant to a row of either changes nothing;
    the order of candidates does not matter.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 0.5]]), torch.tensor([[4.0, 7.0]])
        >>> margin_mse_pairs(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        12.25
    """
    scored = masked.known(teacher, mask)  # (B, N)
    student_margins = masked.differences(student / student_temperature, scored)  # (B, N, N)
    teacher_margins = masked.differences(teacher, scored)  # (B, N, N)
    return masked.mean((student_margins - teacher_margins).square(), masked.pairs(scored))


def ranknet(
    student: Tensor, teacher: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""Mean over pairs with t_i > t_j of log(1 + e^{−(s_i − s_j) / τ_s}).

    RankNet, Burges et al. 2005 (ICML), with the teacher's order as certain truth: the
    form that RankGPT (Sun et al. 2023, https://arxiv.org/abs/2304.09542) and
    Instruction Distillation (https://arxiv.org/abs/2311.01555) train on LLM rankings.
    RankGPT's released code takes the mean over pairs too.

    Args:
        student: scores (B, N).
        teacher: scores (B, N), of which only the order counts.
        mask: (B, N), true where the candidate exists.
        student_temperature: divides the student's scores; for cosine students 0.02–0.1.

    Properties: adding a constant to a row of either, and any rising transformation of the teacher's
    scores, changes nothing; the order of candidates does not matter; never zero.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[2.0, 1.0]])
        >>> ranknet(torch.zeros(1, 2), teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    losses = softplus(-masked.differences(student / student_temperature, mask))  # (B, N, N)
    return masked.mean(losses, masked.preferred(teacher, mask))


def weighted_ranknet(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""Mean over pairs with t_i > t_j of (P_ij − P_ji) · log(1 + e^{−(s_i − s_j) / τ_s}).

    `ranknet` that trusts clear preferences more: P_ij = σ((t_i − t_j) / τ_t), so that a pair counts
    from 0, where the teacher is undecided, to 1. Weighting RankNet's pairs by the teacher's
    difference is an option of RankGPT's released code; the bounded weight is ours. RankNet with P
    as a soft target (Burges et al. 2005) has the gradients of `pair_kl`.

    Args:
        student: scores (B, N).
        teacher: scores (B, N).
        mask: (B, N), true where the candidate exists.
        student_temperature: divides the student's scores; for cosine students 0.02–0.1.
        teacher_temperature: divides the teacher's scores; the lower, the nearer to `ranknet`.

    Properties: adding a constant to a row of either changes nothing; the order of candidates does
    not matter; never zero.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[99.0, 0.0]])
        >>> weighted_ranknet(torch.zeros(1, 2), teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    weights = 2 * torch.sigmoid(_teacher_margins(teacher, mask, teacher_temperature)) - 1
    losses = softplus(-masked.differences(student / student_temperature, mask))  # (B, N, N)
    return masked.mean(weights * losses, masked.preferred(teacher, mask))


def pair_kl(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    preferences: Tensor | None = None,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""Mean over pairs of KL( (P_ij, P_ji) ‖ softmax(s_i/τ_s, s_j/τ_s) ).

    PairDistill, Huang & Chen 2024, https://arxiv.org/abs/2410.01383, and its released code. There
    P comes from a pairwise reranker, asked about sampled pairs: give it as `preferences`. Where
    there are only scores, P_ij = σ((t_i − t_j) / τ_t) over all pairs.

    Args:
        student: scores (B, N).
        teacher: scores (B, N); not used where `preferences` are given.
        mask: (B, N), true where the candidate exists.
        preferences: P_ij, probability that i is the more relevant of i and j, (B, N, N); NaN where
            the pair was not asked. A pair asked in both orders counts in both.
        student_temperature: divides the student's scores; for cosine students 0.02–0.1.
        teacher_temperature: divides the teacher's scores.

    Properties: zero iff all preferences agree; adding a constant to a row of either changes
    nothing; the order of candidates does not matter.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[2.0, 1.0, 0.0]])
        >>> pair_kl(scores, scores + 5, torch.ones(1, 3, dtype=torch.bool)).item()
        0.0
    """
    margins = masked.differences(student / student_temperature, mask)  # (B, N, N)
    if preferences is None:
        scored = masked.known(teacher, mask)  # (B, N)
        compared = masked.pairs(mask) & (scored.unsqueeze(-1) | scored.unsqueeze(-2))  # (B, N, N)
        wanted = _teacher_margins(teacher, mask, teacher_temperature)  # (B, N, N)
    else:
        compared = masked.pairs(mask) & ~preferences.isnan()  # (B, N, N)
        wanted = torch.logit(masked.fill(preferences, compared, 0.5)).clamp(-1e4, 1e4)
    first = torch.sigmoid(wanted) * (logsigmoid(wanted) - logsigmoid(margins))  # (B, N, N)
    second = torch.sigmoid(-wanted) * (logsigmoid(-wanted) - logsigmoid(-margins))  # (B, N, N)
    return masked.mean(first + second, compared)


def _teacher_margins(teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """(t_i − t_j) / τ_t, (B, N, N); −inf is taken as a score so low that σ is 0 or 1 exactly."""
    scored = masked.known(teacher, mask)  # (B, N)
    return masked.differences(masked.fill(teacher / temperature, scored, -1e4), mask)


def adaptive_margin(
    student: Tensor, teacher: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""Mean over negatives j of ((s(q, d_0) − s(q, d_j)) / τ_s − (s(d_0, d_0) − s(d_0, d_j)))².

    Adaptive relevance margins, Gienapp et al. 2024, https://arxiv.org/abs/2407.21515: the nearer a
    negative is to the positive document, the less it must be pushed away. This is `margin_mse` with
    the similarities of the positive to every candidate as its teacher; it has a name of its own so
    that a configuration says what it means. Give a detached teacher, or gradients move the target.

    Args:
        student: scores s(q, d) (B, N), column 0 the positive.
        teacher: similarities s(d_0, d) of the positive with every candidate and itself (B, N).
        mask: (B, N), true where the candidate exists; a row whose column 0 is masked is left out.
        student_temperature: divides the student's scores. At 1 both sides are the same similarity.

    Properties: zero iff all margins agree; adding a constant to a row of either changes nothing;
    the order of the negatives does not matter.

    Example:
        >>> import torch
        >>> student, to_positive = torch.tensor([[0.75, 0.5]]), torch.tensor([[1.0, 0.25]])
        >>> adaptive_margin(student, to_positive, torch.ones(1, 2, dtype=torch.bool)).item()
        0.25
    """
    return margin_mse(student, teacher, mask, student_temperature=student_temperature)


def integrated(scores: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    r"""s_inter = Σ_k w_k s_k, detached: the teacher of each s_k. No objective, a target for one.

    M3-Embedding, Chen et al. 2024, https://arxiv.org/abs/2402.03216, "Self-Knowledge Distillation":
    k is dense, lexical and multi-vector, and `listnet` on softmax(s_inter) teaches each. The
    released code has weights 1, 0.3 and 1.

    Args:
        scores: (B, N) of each of the student's functions.
        weights: of the same names; a name that is missing here does not take part.

    Example:
        >>> parts = {"dense": torch.tensor([[1.0, 0.0]]), "lexical": torch.tensor([[0.0, 2.0]])}
        >>> integrated(parts, {"dense": 1.0, "lexical": 0.25})
        tensor([[1.0000, 0.5000]])
    """
    parts = [weight * scores[name].detach() for name, weight in weights.items()]
    return torch.stack(parts).sum(0)  # (B, N)
