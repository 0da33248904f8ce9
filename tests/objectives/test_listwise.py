"""Objectives on distributions against Sentence Transformers' losses and sums written out."""

from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.sentence_transformer import losses as embedding_losses

from retrieval_kd import objectives
from retrieval_kd.errors import InputError
from tests.objectives.cases import INFINITY, matrices
from tests.objectives.peers import losses, on_lists

SETTINGS = {"student_temperature": 0.5, "teacher_temperature": 2.0}
ALL = [
    objectives.kl,
    objectives.reverse_kl,
    objectives.jsd,
    objectives.skew_kl,
    objectives.skew_pair,
]


class _Passthrough(torch.nn.Module):
    """Stands where a peer's loss expects a model, so that its loss is fed our embeddings."""

    similarity_fn_name = "dot"


def softmax(scores):
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def divergence(p, q):
    """KL(p ‖ q) of two lists of probabilities, 0 · log 0 = 0."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def mix(p, q, share):
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


def mean_over_queries(student, teacher, mask, loss):
    """Mean of `loss(p, q)`, teacher's and student's probabilities at SETTINGS' temperatures."""
    values = []
    for s, t, m in zip(student, teacher, mask, strict=True):
        if m.sum() >= 2 and (t[m] > -INFINITY).any():
            values.append(loss(softmax((t[m] / 2).tolist()), softmax((s[m] / 0.5).tolist())))
    return torch.tensor(sum(values) / len(values))


def unscored_case():
    """A batch as an in-batch term sees it; in the last two rows one candidate, and no score."""
    student, teacher, mask = matrices()
    teacher[:, 3:5] = -INFINITY
    teacher[-1] = -INFINITY
    mask[-2] = torch.tensor([True] + [False] * 6)
    return student, teacher, mask


def test_kl_equals_sentence_transformers():
    generator = torch.Generator().manual_seed(3)
    embeddings = [torch.randn(4, 8, generator=generator) for _ in range(5)]
    teacher = torch.randn(4, 4, generator=generator)
    peer = embedding_losses.DistillKLDivLoss(_Passthrough())
    expected = peer.compute_loss_from_embeddings(embeddings, teacher)
    student = torch.stack([(embeddings[0] * d).sum(-1) for d in embeddings[1:]], 1)  # (4, 4)
    mask = torch.ones(4, 4, dtype=torch.bool)
    torch.testing.assert_close(objectives.kl(student, teacher, mask), expected)


def test_kl_equals_a_sum():
    case = unscored_case()
    expected = mean_over_queries(*case, divergence)
    torch.testing.assert_close(objectives.kl(*case, **SETTINGS), expected)


def test_kl_has_the_gradients_of_listnet():
    student, teacher, mask = matrices()
    student.requires_grad_()
    (got,) = torch.autograd.grad(objectives.kl(student, teacher, mask), student)
    listnet = on_lists(losses.ListNetLoss, student, teacher, mask)
    torch.testing.assert_close(got, torch.autograd.grad(listnet, student)[0])


def test_reverse_kl_equals_a_sum():
    student, teacher, mask = matrices()
    expected = mean_over_queries(student, teacher, mask, lambda p, q: divergence(q, p))
    torch.testing.assert_close(objectives.reverse_kl(student, teacher, mask, **SETTINGS), expected)


def test_reverse_kl_puts_a_floor_under_the_teachers_zeros():
    case = unscored_case()

    def loss(p, q):
        floored = [a or 1e-3 for a in p]
        return divergence(q, [a / sum(floored) for a in floored])

    expected = mean_over_queries(*case, loss)
    torch.testing.assert_close(objectives.reverse_kl(*case, floor=1e-3, **SETTINGS), expected)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_jsd_equals_a_sum(beta):
    case = unscored_case()

    def loss(p, q):
        m = mix(p, q, beta)
        return beta * divergence(p, m) + (1 - beta) * divergence(q, m)

    expected = mean_over_queries(*case, loss)
    torch.testing.assert_close(objectives.jsd(*case, beta=beta, **SETTINGS), expected)


def test_jsd_becomes_either_kl_at_its_ends():
    student, teacher, mask = (m.double() if m.is_floating_point() else m for m in matrices())
    forward = objectives.jsd(student, teacher, mask, beta=1e-7) / 1e-7
    torch.testing.assert_close(forward, objectives.kl(student, teacher, mask), rtol=1e-3, atol=0)
    backward = objectives.jsd(student, teacher, mask, beta=1 - 1e-7) / 1e-7
    expected = objectives.reverse_kl(student, teacher, mask)
    torch.testing.assert_close(backward, expected, rtol=1e-3, atol=0)


def test_skew_kl_equals_a_sum():
    case = unscored_case()
    expected = mean_over_queries(*case, lambda p, q: divergence(p, mix(p, q, 0.2)))
    torch.testing.assert_close(objectives.skew_kl(*case, alpha=0.2, **SETTINGS), expected)


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 1.0), (0.25, 1.25), (0.5, 1.5), (1.0, 1.5)])
def test_skew_pair_moves_to_the_reverse_direction(progress, beta):
    case = unscored_case()
    forward = mean_over_queries(*case, lambda p, q: divergence(p, mix(p, q, 0.2)))
    backward = mean_over_queries(*case, lambda p, q: divergence(q, mix(p, q, 0.8)))
    got = objectives.skew_pair(*case, progress=progress, alpha=0.2, **SETTINGS)
    torch.testing.assert_close(got, (2 - beta) / 2 * forward + beta / 2 * backward)


@pytest.mark.parametrize("objective", ALL)
def test_an_unscored_candidate_is_pushed_down(objective):
    student = torch.zeros(1, 3, requires_grad=True)
    teacher = torch.tensor([[1.0, 0.9, -INFINITY]])
    objective(student, teacher, torch.ones(1, 3).bool()).backward()
    assert student.grad[0, 2] > 0 > student.grad[0, :2].sum()


def test_kl_pushes_an_unscored_candidate_down_by_its_probability():
    student = torch.zeros(1, 3, requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0, -INFINITY]])
    objectives.kl(student, teacher, torch.ones(1, 3).bool()).backward()
    torch.testing.assert_close(student.grad[0, 2], torch.tensor(1 / 3))


@pytest.mark.parametrize("objective", ALL)
def test_a_query_without_teacher_scores_is_left_out(objective):
    student, teacher, mask = unscored_case()
    torch.testing.assert_close(
        objective(student, teacher, mask), objective(student[:-2], teacher[:-2], mask[:-2])
    )


@pytest.mark.parametrize("share", [0.0, 1.0, 2.0])
def test_a_mixture_without_one_of_the_two_is_refused(share):
    with pytest.raises(InputError, match="use kl or reverse_kl"):
        objectives.jsd(*matrices(), beta=share)
    with pytest.raises(InputError, match="use kl or reverse_kl"):
        objectives.skew_pair(*matrices(), alpha=share)
