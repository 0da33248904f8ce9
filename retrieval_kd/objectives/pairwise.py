"""Pairwise objectives: differences between two candidates of one query.

Losses are means over all pairs of the batch. In the teacher's order −inf is the lowest place:
every scored candidate is preferred to it for certain, and two of them are not compared.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from retrieval_kd.objectives import masked
from retrieval_kd.objectives.contrastive import positives


def margin_mse(
    student: Tensor, teacher: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""Mean over negatives j of ((s_0 − s_j) / τ_s − (t_0 − t_j))².

    Hofstätter et al. 2020, https://arxiv.org/abs/2010.02666, eq. 5, on slates instead of triples:
    column 0 is the positive, every other column a negative. Rows whose column 0 is masked and
    candidates with −inf are left out. Teacher scores must be raw logits: after a sigmoid all
    margins are at most 1. A cosine student needs τ_s < 1 to reach the margins of logits.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.5]]), torch.tensor([[7.0, 4.0]])
        >>> margin_mse(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        6.25
    """
    scored = masked.scored(teacher, mask)  # (B, N)
    pairs = scored[:, 1:] & scored[:, :1]  # (B, N-1)
    student_scores = masked.fill(student, scored, 0.0) / student_temperature
    teacher_scores = masked.fill(teacher, scored, 0.0)
    student_margin = student_scores[:, :1] - student_scores[:, 1:]  # (B, N-1)
    teacher_margin = teacher_scores[:, :1] - teacher_scores[:, 1:]  # (B, N-1)
    return masked.mean((student_margin - teacher_margin).square(), pairs)


def adaptive_margin(
    student: Tensor, teacher: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""Mean over negatives j of ((s(q, d_0) − s(q, d_j)) / τ_s − (s(d_0, d_0) − s(d_0, d_j)))².

    Adaptive relevance margins, Gienapp et al. 2024, https://arxiv.org/abs/2407.21515: the closer a
    negative is to the positive document, the less it is pushed away. It is `margin_mse` with the
    similarities s(d_0, d) of the positive to every candidate as its teacher, and has a name of its
    own so that a configuration says what it means.

    Example:
        >>> student, to_positive = torch.tensor([[0.75, 0.5]]), torch.tensor([[1.0, 0.25]])
        >>> adaptive_margin(student, to_positive, torch.ones(1, 2, dtype=torch.bool)).item()
        0.25
    """
    return margin_mse(student, teacher, mask, student_temperature=student_temperature)


def ranknet(
    student: Tensor, teacher: Tensor, mask: Tensor, *, student_temperature: float = 1.0
) -> Tensor:
    r"""Mean over pairs with t_i > t_j of log(1 + e^{−(s_i − s_j) / τ_s}).

    RankNet, Burges et al. 2005 (ICML), with the teacher's order as certain truth: the form that
    RankGPT (Sun et al. 2023, https://arxiv.org/abs/2304.09542) and Instruction Distillation
    (https://arxiv.org/abs/2311.01555) train on rankings of language models. RankGPT's released code
    takes the mean over pairs too. Only the teacher's order counts.

    Example:
        >>> teacher = torch.tensor([[2.0, 1.0]])
        >>> ranknet(torch.zeros(1, 2), teacher, torch.ones(1, 2, dtype=torch.bool)).item()
        0.6931471824645996
    """
    losses = softplus(-masked.differences(student / student_temperature, mask))  # (B, N, N)
    return masked.mean(losses, masked.preferred(teacher, mask))


def preference(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    margin: float = 0.0,
) -> Tensor:
    r"""Mean over losers l of log(1 + e^{margin − (s_w − s_l) / τ_s}); w is the teacher's best.

    Pseudo-preference pairs of PLaD (Zhang et al. 2024, https://arxiv.org/abs/2406.02886): the
    teacher's choice wins over everything the student could choose instead. PLaD's calibration
    losses are hinges; the logistic form is that of DPKD (Li et al. 2024,
    https://arxiv.org/abs/2406.19774) with 1/τ_s for its β and without a reference model. They
    sample one loser; here all other candidates lose. Only the teacher's best counts; if several are
    best, all win.

    Args:
        margin: how far the winner should lead, in units of the divided scores.

    Example:
        >>> teacher = torch.tensor([[0.3, 0.9, 0.1]])
        >>> preference(torch.zeros(1, 3), teacher, torch.ones(1, 3, dtype=torch.bool)).item()
        0.6931471824645996
    """
    order = masked.preferred(teacher, mask)  # (B, N, N)
    beaten = order.any(-2)  # (B, N), some candidate is preferred to it
    winners = order & ~beaten.unsqueeze(-1)  # (B, N, N)
    leads = masked.differences(student / student_temperature, mask)  # (B, N, N)
    return masked.mean(softplus(margin - leads), winners)


def bpr(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""Mean over pairs of negatives with p_i > p_j of −(p_i − p_j) log σ((s_i − s_j) / τ_s).

    p = σ(t / τ_t). The pairwise half of D2LLM's "Rank Imitation" (Liao et al. 2024,
    https://arxiv.org/abs/2406.17262): hard negatives above easy ones, each pair weighted by the
    teacher's difference clamped at zero. The released code pairs hard negatives with in-batch ones
    only; here any two negatives form a pair if the teacher tells them apart. In a batch, documents
    outside the query's pool (t = −inf, p = 0) are the in-batch ones. Relevant candidates are in no
    pair. Teacher scores are logits, so a shift of them counts.

    Example:
        >>> student, teacher = torch.zeros(1, 3), torch.tensor([[9.0, 0.0, float("-inf")]])
        >>> bpr(student, teacher, torch.ones(1, 3, dtype=torch.bool)).item()  # 0.5 · log 2
        0.3465735912322998
    """
    negative = mask & ~positives(mask, labels)  # (B, N)
    probability = torch.sigmoid(masked.fill(teacher, mask, 0.0) / teacher_temperature)  # (B, N)
    losses = softplus(-masked.differences(student / student_temperature, negative))  # (B, N, N)
    weights = masked.differences(probability, negative)  # (B, N, N)
    return masked.mean(weights * losses, masked.preferred(probability, negative))


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

    PairDistill, Huang & Chen 2024, https://arxiv.org/abs/2410.01383, and its released code. There P
    comes from a pairwise reranker that compares sampled pairs: give it as `preferences`. With
    scores alone, P_ij = σ((t_i − t_j) / τ_t) over all pairs.

    Args:
        preferences: P_ij, the probability that i is more relevant than j, (B, N, N); NaN where the
            pair was not compared. A pair compared in both orders counts in both. The teacher's
            scores are then not used.

    Example:
        >>> scores = torch.tensor([[2.0, 1.0, 0.0]])
        >>> pair_kl(scores, scores + 5, torch.ones(1, 3, dtype=torch.bool)).item()
        0.0
    """
    margins = masked.differences(student / student_temperature, mask)  # (B, N, N)
    if preferences is None:
        scored = masked.scored(teacher, mask)  # (B, N)
        compared = masked.pairs(mask) & (scored.unsqueeze(-1) | scored.unsqueeze(-2))  # (B, N, N)
        # −inf becomes a score so low that σ is exactly 0 or 1
        teacher = masked.fill(teacher / teacher_temperature, scored, -1e4)  # (B, N)
        target = masked.differences(teacher, mask)  # (B, N, N)
    else:
        compared = masked.pairs(mask) & ~preferences.isnan()  # (B, N, N)
        target = torch.logit(masked.fill(preferences, compared, 0.5)).clamp(-1e4, 1e4)
    first = torch.sigmoid(target) * (logsigmoid(target) - logsigmoid(margins))  # (B, N, N)
    second = torch.sigmoid(-target) * (logsigmoid(-target) - logsigmoid(-margins))  # (B, N, N)
    return masked.mean(first + second, compared)
