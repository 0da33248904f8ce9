"""Objectives on one vector per text: student (n, D) and teacher (n, E) have encoded the same texts.

The teacher's vectors are taken as they are: detach them. D and E may differ for `embedding_pca` and
`embedding_similarity`. `flops` and `spread_out` read the student's vectors only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def embedding_mse(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean of (s − t)² over all numbers.

    With parallel texts: Reimers & Gurevych 2020, https://arxiv.org/abs/2004.09813, section 2.
    Sentence Transformers has it as `EmbedDistillLoss(distance_metric="mse")`.

    Example:
        >>> embedding_mse(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])).item()
        2.0
    """
    return nn.functional.mse_loss(student, teacher)


def embedding_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over texts of 1 − cos(s, t).

    For students compared by cosine, to which a vector's length means nothing; DistilBERT's cosine
    loss (Sanh et al. 2019, https://arxiv.org/abs/1910.01108, section 2) on the text's vector.

    Example:
        >>> embedding_cosine(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item()
        1.0
    """
    return (1 - nn.functional.cosine_similarity(student, teacher, dim=-1)).mean()


def embedding_pca(student: Tensor, teacher: Tensor, axes: Tensor) -> Tensor:
    r"""Mean of (s − A t)² over all numbers: A t is the teacher's vector on its first axes.

    Homomorphic projective distillation, Zhao et al. 2022, https://arxiv.org/abs/2203.07687: a small
    encoder with a trained projection learns the vectors of a wider teacher after PCA. The trainer
    sets A, the D first principal axes of the teacher's vectors of the collection's documents
    (`fit_projection`, no mean subtracted), so that products of targets are close to the teacher's.

    Args:
        student: (n, D).
        teacher: (n, E), E ≥ D.
        axes: A (D, E).

    Example:
        >>> student, teacher = torch.tensor([[1.0]]), torch.tensor([[3.0, 4.0]])
        >>> embedding_pca(student, teacher, torch.tensor([[0.0, 1.0]])).item()
        9.0
    """
    return nn.functional.mse_loss(student, teacher @ axes.T)


def embedding_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over all pairs of texts i, j of (cos(s_i, s_j) − cos(t_i, t_j))²: Gram matrices.

    The similarity loss of Jasper and Stella, Zhang et al. 2024, https://arxiv.org/abs/2412.19048,
    section 3 (RAG-Retrieval's `pair_inbatch_similarity_loss`; its authors weigh it 200 where the
    cosine loss has 10). The student keeps a space of its own, of any width: turning all its vectors
    alike changes nothing. It learns which texts are near each other, so it wants large batches.

    Example:
        >>> student = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
        >>> embedding_similarity(student, torch.eye(3)[:2]).item()
        0.0
    """
    own, other = (nn.functional.normalize(v, dim=-1) for v in (student, teacher))
    return nn.functional.mse_loss(own @ own.T, other @ other.T)  # (n, n)


def flops(
    vectors: Tensor, *, progress: float = 1.0, ramp: float = 0.33, threshold: int = 0
) -> Tensor:
    r"""Σ_j ( mean_i |w_ij| )²: the expected cost of a dot product of sparse vectors.

    Paria et al. 2020, https://arxiv.org/abs/2004.05665, as in SPLADE
    (https://arxiv.org/abs/2107.05720, eq. 4), whose weight rises with the square of the step until
    `ramp` of the training is over (section 5.1: 50k of 150k steps). With a `threshold`, a text with
    few words is not made to have fewer: the ℓ0 mask of https://arxiv.org/abs/2504.14839.

    Args:
        vectors: (n, V) weights of words.
        ramp: share of the steps after which the regulariser has its full weight.
        threshold: texts with at most so many words count as zero in the mean.

    Example:
        >>> flops(torch.tensor([[2.0, 0.0], [0.0, 0.0]])).item()
        1.0
    """
    risen = min(1.0, progress / ramp) ** 2 if ramp > 0 else 1.0
    long = (vectors != 0).sum(1, keepdim=True) > threshold  # (n, 1)
    return risen * (vectors.abs() * long).mean(0).square().sum()


def spread_out(vectors: Tensor) -> Tensor:
    r"""m² + max(0, s − 1 / D): m is the mean cosine of two different texts, s that of its square.

    Vectors that point anywhere at random have m = 0 and s = 1 / D. Zhang et al. 2017,
    https://arxiv.org/abs/1708.06320, eq. 5; EmbeddingGemma has its second half
    (https://arxiv.org/abs/2509.20354). Sentence Transformers has it as
    `GlobalOrthogonalRegularizationLoss`.

    Args:
        vectors: (n, D); of one text alone the value is 0.

    Example:
        >>> spread_out(torch.tensor([[2.0, 0.0], [1.0, 0.0]])).item()
        1.5
    """
    count, width = vectors.shape
    if count < 2:
        return vectors.sum() * 0.0
    unit = nn.functional.normalize(vectors, dim=-1)
    cosines = (unit @ unit.T)[~torch.eye(count, dtype=torch.bool, device=vectors.device)]
    return cosines.mean().square() + (cosines.square().mean() - 1 / width).clamp_min(0.0)
