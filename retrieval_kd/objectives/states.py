"""Objectives on states inside the models: of layers, tokens, or a query read with a document.

The teacher's states are taken as they are: detach them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from retrieval_kd.errors import InputError
from retrieval_kd.objectives import masked
from retrieval_kd.objectives.listwise import kl


def hidden_states(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    attention: Tensor,
    *,
    layers: Sequence[tuple[int, int]],
    distance: Literal["mse", "cosine"] = "mse",
) -> Tensor:
    r"""Mean over pairs (i, j) of layers of the distance of s_i from t_j, over real tokens.

    "mse" is TinyBERT's hidden-state loss (Jiao et al. 2019, https://arxiv.org/abs/1909.10351, eq.
    8), "cosine", 1 − cos of each token, is DistilBERT's (Sanh et al. 2019,
    https://arxiv.org/abs/1910.01108, section 2). Both models must cut texts into the same tokens.

    Args:
        student: hidden states (B, T, D) of each layer, as `output_hidden_states` returns them: the
            embeddings first.
        teacher: hidden states (B, T, D) of the same tokens.
        attention: mask (B, T), true for real tokens.
        layers: pairs (student's layer, teacher's layer), for example `[(1, 2), (2, 4), (3, 6)]`.

    Example:
        >>> student, teacher = [torch.zeros(1, 2, 3)] * 2, [torch.ones(1, 2, 3)] * 4
        >>> attention = torch.tensor([[True, False]])
        >>> hidden_states(student, teacher, attention, layers=[(0, 0), (1, 3)]).item()
        1.0
    """
    keep = attention.bool()  # (B, T)
    losses = []
    for i, j in layers:
        own = masked.fill(student[i], keep[..., None], 1.0)  # (B, T, D)
        other = masked.fill(teacher[j], keep[..., None], 1.0)  # (B, T, D)
        if distance == "mse":
            per_token = (own - other).square().mean(-1)  # (B, T)
        else:
            per_token = 1 - cosine_similarity(own, other, dim=-1)
        losses.append(masked.mean(per_token, keep))
    return torch.stack(losses).mean()


def relations(student: Tensor, teacher: Tensor, attention: Tensor, *, heads: int = 1) -> Tensor:
    r"""Mean over heads and tokens of KL(softmax(T Tᵀ / √d_t) ‖ softmax(S Sᵀ / √d_s)).

    MiniLMv2, Wang et al. 2020, https://arxiv.org/abs/2012.15828, section 3.1: S and T are one
    layer's queries, keys or values, all attention heads side by side, split again into `heads`
    parts of equal width. Sum three calls, one each for queries, keys and values. Neither widths nor
    numbers of attention heads have to agree.

    Args:
        student: queries, keys or values (B, T, D).
        teacher: the same of the teacher (B, T, E); both cut texts into the same tokens.
        attention: mask (B, T), true for real tokens. Texts of a single token are left out.
        heads: relation heads, a divisor of D and E; the paper has 48 for teachers of base size.

    Raises:
        InputError: D or E cannot be split into that many heads.

    Example:
        >>> vectors = torch.randn(2, 5, 8)
        >>> relations(vectors, vectors, torch.ones(2, 5), heads=4).item()
        0.0
    """
    keep = attention.bool()[:, None, None, :]  # (B, 1, 1, T)
    own, other = _relate(student, keep, heads), _relate(teacher, keep, heads)  # (B, h, T, T)
    pairs = (keep & keep.transpose(2, 3)).expand_as(own)  # (B, h, T, T)
    width = own.shape[-1]
    return kl(own.reshape(-1, width), other.reshape(-1, width), pairs.reshape(-1, width))


def token_alignment(
    student: Tensor, teacher: Tensor, student_mask: Tensor, teacher_mask: Tensor
) -> Tensor:
    r"""Mean over aligned tokens of 1 − cos(s_i, t_a(i)), each student token with its teacher token.

    For multi-vector models on parallel texts, whose tokens differ in number and order: DR.DECR, Li
    et al. 2021, https://arxiv.org/abs/2112.08185. Pairs are taken greedily by cosine, the most
    alike first, each token once, as in the released code. There aligned vectors of unit length are
    compared by squared error, which is this times 2 / D.

    Args:
        student: token vectors (B, T, D).
        teacher: token vectors (B, U, D), for example of the same text in another language.
        student_mask: (B, T), true for real tokens.
        teacher_mask: (B, U), true for real tokens. Tokens of the longer side that remain are not
            compared.

    Example:
        >>> teacher, mask = torch.eye(3)[None], torch.ones(1, 3)
        >>> token_alignment(teacher.flip(1), teacher, mask, mask).item()
        0.0
    """
    keep = student_mask.bool()[:, :, None] & teacher_mask.bool()[:, None, :]  # (B, T, U)
    own = normalize(masked.fill(student, student_mask.bool()[..., None], 1.0), dim=-1)
    other = normalize(masked.fill(teacher, teacher_mask.bool()[..., None], 1.0), dim=-1)
    cosines = own @ other.transpose(1, 2)  # (B, T, U)
    return masked.mean(1 - cosines, _greedy_pairs(cosines.detach(), keep))


def feature_imitation(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    r"""Mean over pairs i, j of a query's candidates of (cos(s_i, s_j) − cos(t_i, t_j))², then
    queries.

    D2LLM, Liao et al. 2024, https://arxiv.org/abs/2406.17262, "Feature Imitation": s_i is the
    student's interaction feature of the query with candidate i (the input of its head's logit),
    t_i the teacher's state before its answer. Similarities are compared, so widths may differ.

    Args:
        student: features (B, N, D).
        teacher: features (B, N, E).
        mask: (B, N), true where the candidate exists. Queries with fewer than two are left out.

    Example:
        >>> student, teacher = torch.ones(1, 2, 3), torch.eye(2)[None]
        >>> round(feature_imitation(student, teacher, torch.ones(1, 2, dtype=torch.bool)).item(), 6)
        0.5
    """
    pairs = mask[:, :, None] & mask[:, None, :]  # (B, N, N)
    squares = (_similarities(student, mask) - _similarities(teacher, mask)).square()  # (B, N, N)
    per_query = masked.fill(squares, pairs, 0.0).sum((1, 2)) / mask.sum(-1).clamp(min=1) ** 2
    return masked.mean(per_query, mask.sum(-1) >= 2)


def _relate(vectors: Tensor, keep: Tensor, heads: int) -> Tensor:
    """Scaled products (B, heads, T, T) of the tokens of vectors (B, T, D)."""
    if vectors.shape[-1] % heads:
        raise InputError(
            f"vectors of width {vectors.shape[-1]} cannot be cut into {heads} relation heads",
            remedy="give a number of heads that divides the widths of student and teacher",
        )
    vectors = masked.fill(vectors, keep[:, 0, 0, :, None], 0.0)  # (B, T, D)
    cut = vectors.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, T, d)
    return cut @ cut.transpose(2, 3) / sqrt(cut.shape[-1])


def _greedy_pairs(similarity: Tensor, keep: Tensor) -> Tensor:
    """Pairs (B, T, U) taken in falling order of similarity, each row and column once."""
    free = masked.fill(similarity, keep, float("-inf"))  # (B, T, U)
    taken = torch.zeros_like(keep)
    for _ in range(min(keep.shape[1:])):
        best = torch.zeros_like(keep).flatten(1)  # (B, T · U)
        best = best.scatter(1, free.flatten(1).argmax(1, keepdim=True), True).view_as(keep)
        best = best & (free > float("-inf"))
        taken = taken | best
        used = best.any(2, keepdim=True) | best.any(1, keepdim=True)  # (B, T, U)
        free = masked.fill(free, ~used, float("-inf"))
    return taken


def _similarities(features: Tensor, mask: Tensor) -> Tensor:
    """Cosines (B, N, N) of all pairs of features (B, N, D)."""
    unit = normalize(masked.fill(features, mask[..., None], 1.0), dim=-1)  # (B, N, D)
    return unit @ unit.transpose(1, 2)
