"""Objectives on one vector per text: student (n, D) and teacher (n, E) have encoded the same texts.

The teacher's vectors are taken as they are: detach them. Where D and E differ, the trainer projects
the student's vectors first; the relational objectives `rkd_*` need no projection. `flops` reads the
student's vectors only.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss, normalize, smooth_l1_loss

from retrieval_kd.objectives import masked
from retrieval_kd.objectives.contrastive import infonce


def embedding_mse(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean of (s − t)² over all numbers.

    With parallel texts: Reimers & Gurevych 2020, https://arxiv.org/abs/2004.09813, section 2. With
    a teacher reduced beforehand by PCA and a trained projection: homomorphic projective
    distillation, Zhao et al. 2022, https://arxiv.org/abs/2203.07687. Sentence Transformers has it
    as `EmbedDistillLoss(distance_metric="mse")`.

    Example:
        >>> embedding_mse(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])).item()
        2.0
    """
    return mse_loss(student, teacher)


def embedding_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over texts of 1 − cos(s, t).

    For students compared by cosine, to which a vector's length means nothing; DistilBERT's cosine
    loss (Sanh et al. 2019, https://arxiv.org/abs/1910.01108, section 2) on the text's vector.

    Example:
        >>> embedding_cosine(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
        1.0
    """
    return (1 - cosine_similarity(student, teacher, dim=-1)).mean()


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over i, j of smooth L1 between ‖s_i − s_j‖ / μ_s and ‖t_i − t_j‖ / μ_t.

    Relational knowledge distillation, Park et al. 2019, https://arxiv.org/abs/1904.05068, section
    3.2.1; μ is the mean of the batch's distances above zero. As in the released code the n zeros
    of i = j are part of the mean over i, j. It is zero if one set of vectors is the other moved,
    rotated or scaled.

    Example:
        >>> student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.eye(3)
        >>> rkd_distance(student, 5 - 2 * student).item()
        0.0
        >>> round(rkd_distance(student, teacher).item(), 4)
        0.0556
    """
    return smooth_l1_loss(_distances(student), _distances(teacher))


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over i, j, k of smooth L1 between cos ∠(s_i s_j s_k) and cos ∠(t_i t_j t_k).

    Park et al. 2019, https://arxiv.org/abs/1904.05068, section 3.2.2; the corner is at j. As in
    the released code triples with i = j or j = k (cosine 0) and i = k (cosine 1) are part of the
    mean. It is zero if one set of vectors is the other moved, rotated or scaled, and takes n³
    numbers of memory.

    Example:
        >>> teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> rkd_angle(3 * teacher + 1, teacher).item() < 1e-9
        True
    """
    return smooth_l1_loss(_angles(student), _angles(teacher))


def contrastive_kd(
    student: Tensor,
    teacher: Tensor,
    *,
    queue: Tensor | None = None,
    temperature: float = 0.05,
) -> Tensor:
    r"""InfoNCE of cos(s_i, t_i) / τ against all other t_j of the batch and of a queue.

    Contrastive distillation of DistilCSE, Gao et al. 2021, https://arxiv.org/abs/2112.05638: no
    labels are needed, a text's positive is the teacher's vector of that text.

    Args:
        queue: teacher's vectors (K, E) of earlier batches, further negatives; the released code
            keeps 50,000. The caller keeps it, and keeps the batch's own texts out of it.
        temperature: τ; 0.05 is SimCSE's.

    Example:
        >>> contrastive_kd(torch.ones(2, 3), torch.ones(2, 3)).item()
        0.6931471824645996
    """
    keys = teacher if queue is None else torch.cat([teacher, queue])  # (n + K, E)
    queries = normalize(student, dim=-1)  # (n, E)
    scores = queries @ normalize(keys, dim=-1).T  # (n, n + K)
    own = torch.eye(*scores.shape, device=scores.device)
    everything = torch.ones_like(scores, dtype=torch.bool)
    return infonce(scores, scores, everything, labels=own, student_temperature=temperature)


def flops(vectors: Tensor, *, progress: float = 1.0, ramp: float = 0.33) -> Tensor:
    r"""Σ_j ( mean_i |w_ij| )²: the expected cost of a dot product of sparse vectors.

    Paria et al. 2020, https://arxiv.org/abs/2004.05665, as in SPLADE
    (https://arxiv.org/abs/2107.05720, eq. 4), whose weight rises with the square of the step until
    `ramp` of the training is over (section 5.1: 50k of 150k steps).

    Args:
        vectors: (n, V) weights of words.
        ramp: share of the steps after which the regulariser has its full weight.

    Example:
        >>> flops(torch.tensor([[2.0, 0.0], [0.0, 0.0]])).item()
        1.0
    """
    risen = min(1.0, progress / ramp) ** 2 if ramp > 0 else 1.0
    return risen * vectors.abs().mean(0).square().sum()


def _distances(vectors: Tensor) -> Tensor:
    """Euclidean distances (n, n), divided by the mean of those above zero."""
    exact = "donot_use_mm_for_euclid_dist"  # the fast way makes equal vectors differ
    distances = torch.cdist(vectors, vectors, compute_mode=exact)  # (n, n)
    mean = masked.mean(distances, distances > 0)
    return distances / torch.where(mean > 0, mean, torch.ones_like(mean))


def _angles(vectors: Tensor) -> Tensor:
    """cos ∠(x_i x_j x_k) at [j, i, k] (n, n, n); 0 where a side has no length."""
    sides = vectors[None, :, :] - vectors[:, None, :]  # (n, n, D), [j, i] is x_i − x_j
    some = (sides != 0).any(-1, keepdim=True)  # (n, n, 1)
    unit = masked.fill(normalize(masked.fill(sides, some, 1.0), dim=-1), some, 0.0)
    return unit @ unit.transpose(1, 2)
