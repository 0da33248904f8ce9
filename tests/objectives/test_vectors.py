"""Objectives on vectors against Sentence Transformers' losses and loops written out."""

from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.sentence_transformer import losses as peers
from torch.nn.functional import cosine_similarity, cross_entropy, smooth_l1_loss

from retrieval_kd.objectives import vectors as objectives


class Given(torch.nn.Module):
    """Stands where a peer's loss expects a model; its losses take the embeddings directly."""

    similarity_fn_name = "cosine"
    device = torch.device("cpu")

    def get_embedding_dimension(self) -> int:
        return 4


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def check(objective, *inputs: torch.Tensor) -> None:
    """Gradients of the first input equal finite differences."""
    student = inputs[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: objective(s, *inputs[1:]), student)


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_embedding_objectives_equal_sentence_transformers(metric):
    student, teacher = vectors(5, 4).float(), vectors(5, 4, seed=1).float()
    peer = peers.EmbedDistillLoss(Given(), distance_metric=metric)
    expected = peer.compute_loss_from_embeddings([student], [teacher])
    objective = objectives.embedding_mse if metric == "mse" else objectives.embedding_cosine
    torch.testing.assert_close(objective(student, teacher), expected)


def test_embedding_objectives_are_zero_at_the_teachers_vectors():
    student, teacher = vectors(5, 4), vectors(5, 4, seed=1)
    expected = ((student - teacher) ** 2).mean()
    torch.testing.assert_close(objectives.embedding_mse(student, teacher), expected)
    assert objectives.embedding_mse(teacher, teacher) == 0
    same_direction = objectives.embedding_cosine(3 * teacher, teacher)
    torch.testing.assert_close(same_direction, torch.zeros_like(same_direction))
    check(objectives.embedding_mse, student, teacher)
    check(objectives.embedding_cosine, student, teacher)


def test_rkd_distance_equals_the_sum_over_pairs():
    student, teacher = vectors(5, 4), vectors(5, 6, seed=1)

    def relative(x):
        distances = [[math.dist(a, b) for b in x.tolist()] for a in x.tolist()]
        mean = sum(map(sum, distances)) / (5 * 4)
        return torch.tensor(distances, dtype=torch.float64) / mean

    expected = smooth_l1_loss(relative(student), relative(teacher))
    torch.testing.assert_close(objectives.rkd_distance(student, teacher), expected)
    check(objectives.rkd_distance, student, teacher)


def test_rkd_angle_equals_the_sum_over_triples():
    student, teacher = vectors(5, 4), vectors(5, 6, seed=1)

    def cosine(x, i, j, k):
        return 0.0 if j in (i, k) else cosine_similarity(x[i] - x[j], x[k] - x[j], dim=0).item()

    terms = []
    for i in range(5):
        for j in range(5):
            for k in range(5):
                gap = abs(cosine(student, i, j, k) - cosine(teacher, i, j, k))
                terms.append(gap**2 / 2 if gap < 1 else gap - 0.5)
    got = objectives.rkd_angle(student, teacher)
    torch.testing.assert_close(got.item(), sum(terms) / 125)
    check(objectives.rkd_angle, student, teacher)


@pytest.mark.parametrize("objective", [objectives.rkd_distance, objectives.rkd_angle])
def test_relations_do_not_change_when_vectors_are_moved_rotated_or_scaled(objective):
    teacher = vectors(6, 4)
    rotation = torch.linalg.qr(vectors(4, 4, seed=1)).Q
    got = objective(3 * teacher @ rotation + 1, teacher)
    torch.testing.assert_close(got, torch.zeros_like(got))


@pytest.mark.parametrize("objective", [objectives.rkd_distance, objectives.rkd_angle])
@pytest.mark.parametrize("count", [1, 3])
def test_equal_vectors_and_single_texts_are_finite(objective, count):
    student = torch.ones(count, 4, requires_grad=True)
    objective(student, vectors(count, 6).float()).backward()
    assert student.grad.isfinite().all() and student.grad.abs().max() < 10


def test_contrastive_kd_equals_sentence_transformers_with_the_queue_as_negatives():
    student, teacher, queue = (vectors(5, 4, seed=s).float() for s in range(3))
    peer = peers.MultipleNegativesRankingLoss(Given(), scale=20.0)
    expected = peer.compute_loss_from_embeddings([student, teacher, queue], labels=None)
    got = objectives.contrastive_kd(student, teacher, queue=queue, temperature=0.05)
    torch.testing.assert_close(got, expected)


def test_contrastive_kd_without_a_queue():
    student, teacher = vectors(5, 4), vectors(5, 4, seed=1)
    scores = cosine_similarity(student[:, None], teacher[None], dim=-1) / 0.2
    got = objectives.contrastive_kd(student, teacher, temperature=0.2)
    torch.testing.assert_close(got, cross_entropy(scores, torch.arange(5)))
    check(objectives.contrastive_kd, student, teacher)
