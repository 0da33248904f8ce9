"""Objectives on several score matrices at once: of several teachers, or of several layers.

The teachers' scores `teachers (T, B, N)` may each be on a scale of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from retrieval_kd.objectives import masked
from retrieval_kd.objectives.contrastive import infonce
from retrieval_kd.objectives.listwise import divergence, kl, log_distributions

# losses are clamped to this before they become features of the policy's state
MAX_LOSS_FEATURE = 10.0


def teacher_dropping(
    student: Tensor,
    teachers: Tensor,
    mask: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    drop: float = 0.5,
) -> Tensor:
    r"""Mean of KL(t_k ‖ s) over the teachers k that are kept for a query, then over queries.

    For each query the teacher that the student is farthest from is always kept, every other one is
    left out with probability `drop`: a student cannot settle on the easiest teacher. UNIC,
    Sariyildiz et al. 2024, https://arxiv.org/abs/2408.05088 (teacher dropping, probability 0.5 in
    the released code), there with feature losses in place of KL.

    Args:
        drop: probability of leaving a teacher out; 0 is the mean over all teachers.

    Example:
        >>> scores = torch.tensor([[2.0, 1.0]])
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> teacher_dropping(scores, torch.stack([scores, scores + 3]), mask).item()
        0.0
    """
    loss, there = _divergences(
        student, teachers, mask, student_temperature, teacher_temperature
    )  # (T, B)
    farthest = masked.fill(loss.detach(), there, -1.0).argmax(0)  # (B,)
    chance = torch.rand(loss.shape, device=loss.device) >= drop
    kept = there & (chance | (torch.arange(len(loss), device=loss.device)[:, None] == farthest))
    per_query = masked.fill(loss, kept, 0.0).sum(0) / kept.sum(0).clamp(min=1)
    return masked.mean(per_query, kept.any(0))


def reinforced_teachers(
    student: Tensor,
    teachers: Tensor,
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    queries: Tensor | None = None,
    policy: Policy | None = None,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Tensor:
    r"""Mean of KL(t_k ‖ s) over the teachers k that a policy chose for a query, then over queries.

    Reinforced multi-teacher selection, Yuan et al. 2021, https://arxiv.org/abs/2012.06048: teacher
    k is used for a query with the probability σ(A_k f + b_k) of its state f. The state is made of
    the query's vector, the student's loss with this teacher, the teacher's own loss by the labels,
    and whether there are labels. The policy learns by REINFORCE; the reward is −(the student's loss
    by the labels), their reward 1, here of the batch that follows the choice. State, policy, equal
    shares of the chosen teachers and reward follow accounts of the paper; the policy's start, its
    baseline and when it is rewarded are ours. A query without a chosen teacher adds nothing.

    Args:
        queries: the student's vectors of the queries (B, D). The trainer sets them.
        policy: the `TeacherPolicy` that the trainer makes and trains; by default all teachers are
            used, which is `teacher_dropping` with `drop=0`.

    Example:
        >>> scores = torch.tensor([[2.0, 1.0]])
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> reinforced_teachers(scores, torch.stack([scores, scores + 3]), mask).item()
        0.0
    """
    loss, there = _divergences(
        student, teachers, mask, student_temperature, teacher_temperature
    )  # (T, B)
    kept, policy_loss = there, loss.new_zeros(())
    if policy is not None and queries is not None and labels is not None:
        judged = ((labels > 0) & mask).any(-1)  # (B,)
        own = _label_loss(student.detach() / student_temperature, labels, mask)  # (B,)
        theirs = [_label_loss(teacher / teacher_temperature, labels, mask) for teacher in teachers]
        facts = [loss.detach(), torch.stack(theirs), judged.expand_as(loss)]  # (T, B) each
        clamped = [fact.float().clamp(0, MAX_LOSS_FEATURE) for fact in facts]  # (T, B) each
        vectors = normalize(queries.detach().float(), dim=-1).expand(len(loss), -1, -1)  # (T, B, D)
        states = torch.cat(
            [vectors, masked.fill(torch.stack(clamped, -1), there[..., None], 0.0)], -1
        )  # (T, B, D + 3)
        reward = -masked.mean(own, judged) if bool(judged.any()) else None
        kept, policy_loss = policy(states, there, reward)
    per_query = masked.fill(loss, kept, 0.0).sum(0) / kept.sum(0).clamp(min=1)
    return masked.mean(per_query, there.any(0)) + policy_loss


def layer_relevance(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    mask: Tensor,
    *,
    labels: Tensor | None = None,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    layer_temperature: float = 1.0,
) -> Tensor:
    r"""Σ_l w_l · `kl`(s_l, t_l), where w = softmax(−`infonce`(t_l) / τ_w) over the layers l.

    LEAD, Sun et al. 2022, https://arxiv.org/abs/2212.05225: the vectors of each chosen layer give
    scores just as the last layer's do, so a student layer learns a teacher layer's ranking whatever
    their widths and vocabularies. Layers that rank well by themselves weigh more; as in the
    released code the weights come from the teacher's layers and carry no gradient.

    Args:
        student: scores (B, N) by each of L layers, or one tensor (L, B, N).
        teacher: scores (B, N) by each of as many layers, in the same order.
        teacher_temperature: divides the teacher's scores in the target, not in the weights.
        layer_temperature: τ_w; the higher, the more alike the weights.

    Example:
        >>> scores = torch.randn(3, 2, 4)
        >>> layer_relevance(scores, scores + 1, torch.ones(2, 4, dtype=torch.bool)).item() < 1e-6
        True
    """
    tau_s, tau_t = student_temperature, teacher_temperature
    losses, qualities = [], []
    for s, t in zip(student, teacher, strict=True):
        losses.append(kl(s, t, mask, student_temperature=tau_s, teacher_temperature=tau_t))
        qualities.append(-infonce(t.detach(), t, mask, labels=labels))
    weights = torch.softmax(torch.stack(qualities) / layer_temperature, 0)  # (L,)
    return (weights * torch.stack(losses)).sum()


# (states (T, B, F), there (T, B), reward or None) → (teachers kept (T, B), the policy's loss)
Policy = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def _divergences(
    student: Tensor, teachers: Tensor, mask: Tensor, tau_s: float, tau_t: float
) -> tuple[Tensor, Tensor]:
    """KL(t_k ‖ s) by teacher and query, and whether it scored two candidates, (T, B) each."""
    losses, enough = [], []
    for teacher in teachers:
        scored = mask & ~teacher.isnan()
        scored = scored & (teacher.isfinite() & scored).any(-1, keepdim=True)
        log_target, log_student = log_distributions(student, teacher, scored, tau_s, tau_t)
        losses.append(divergence(log_target, log_student))  # (B,)
        enough.append(scored.sum(-1) >= 2)
    return torch.stack(losses), torch.stack(enough)


def _label_loss(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """−log of the relevant candidates' probability by the scores, (B,); 0 without judgments."""
    scored = mask & scores.isfinite()
    relevant = scored & (labels > 0)  # (B, N)
    log_probability = masked.log_softmax(masked.fill(scores, scored, float("-inf")), scored)
    likely = masked.fill(log_probability, relevant, float("-inf")).logsumexp(-1)  # (B,)
    missed = torch.where(relevant.any(-1), -likely, torch.full_like(likely, MAX_LOSS_FEATURE))
    return missed * ((labels > 0) & mask).any(-1)
