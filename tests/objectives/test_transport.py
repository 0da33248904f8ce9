"""Transport objectives against exact transport and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax
from scipy.stats import wasserstein_distance

from retrieval_kd.objectives import transport

NAN, INF = float("nan"), float("inf")
ALL = [transport.sinkhorn, transport.sorted_probability]


def full(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def case(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores and a mask; the last rows have one candidate and none."""
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    teacher = torch.randn(rows, 5, generator=generator, dtype=torch.float64) * 2
    mask = torch.rand(rows, 5, generator=generator) > 0.2
    mask[:, :2], mask[-2, 1:], mask[-1] = True, False, False
    return student, teacher, mask


def costs(student: torch.Tensor, teacher: torch.Tensor) -> np.ndarray:
    """L1 between distributions in the teacher's order, for full rows."""
    order = np.argsort(-teacher.numpy(), axis=1)
    q = np.take_along_axis(softmax(student.numpy(), axis=1), order, 1)
    p = np.take_along_axis(softmax(teacher.numpy(), axis=1), order, 1)
    return np.abs(q[:, None] - p[None]).sum(-1)


def test_sinkhorn_of_two_queries_has_a_closed_form():
    student, teacher, _ = case()
    student, teacher = student[:2], teacher[:2]
    c = costs(student, teacher)
    # a plan [[x, 1 − x], [1 − x, x]] scaled from e^{−C/ε} keeps its odds ratio (x / (1 − x))²
    root = math.exp((c[0, 1] + c[1, 0] - c[0, 0] - c[1, 1]) / 2 / 0.5)
    x = root / (1 + root)
    expected = (x * (c[0, 0] + c[1, 1]) + (1 - x) * (c[0, 1] + c[1, 0])) / 2
    got = transport.sinkhorn(student, teacher, full(2, 5), regularisation=0.5, iterations=200)
    torch.testing.assert_close(got.item(), expected)


def test_sinkhorn_approaches_the_cheapest_assignment():
    student, teacher, _ = case(8)
    c = costs(student, teacher)
    expected = c[linear_sum_assignment(c)].mean()
    assert expected < c.diagonal().mean()  # not every query is matched with itself
    got = transport.sinkhorn(student, teacher, full(8, 5), regularisation=1e-3, iterations=3000)
    torch.testing.assert_close(got.item(), expected, rtol=1e-3, atol=0)


def test_sinkhorn_of_one_query_is_the_l1_distance_of_the_others_nothing():
    student, teacher, _ = case(3)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    expected = (student[0].softmax(0) - teacher[0].softmax(0)).abs().sum()
    torch.testing.assert_close(transport.sinkhorn(student, teacher, mask), expected)


def test_sinkhorn_keeps_unscored_candidates_of_a_batch_before_masked_ones():
    student = torch.tensor([[0.3, 0.1, 0.2]])
    teacher = torch.tensor([[-INF, 1.0, 5.0]])
    mask = torch.tensor([[True, True, False]])
    q = math.exp(0.3) / (math.exp(0.3) + math.exp(0.1))
    got = transport.sinkhorn(student, teacher, mask)
    torch.testing.assert_close(got, torch.tensor(2 * q))


def test_sinkhorn_does_not_depend_on_the_order_of_candidates_or_queries():
    student, teacher, mask = case()
    teacher = teacher.round()  # with ties
    expected = transport.sinkhorn(student, teacher, mask)
    generator = torch.Generator().manual_seed(2)
    columns = torch.stack([torch.randperm(5, generator=generator) for _ in range(6)])  # per query
    rows = torch.randperm(6, generator=generator)
    moved = [x.gather(1, columns)[rows] for x in (student, teacher, mask)]
    got = transport.sinkhorn(*moved, iterations=20)
    torch.testing.assert_close(got, expected)


def test_sorted_probability_is_the_wasserstein_distance_of_the_probabilities():
    student, teacher, mask = case()
    expected = []
    for s, t, m in zip(student, teacher, mask, strict=True):
        if m.sum() >= 2:
            q, p = softmax(s[m].numpy() / 0.5), softmax(t[m].numpy() / 2)
            expected.append(wasserstein_distance(q, p) * len(p))  # its mean over atoms → sum
    got = transport.sorted_probability(
        student, teacher, mask, student_temperature=0.5, teacher_temperature=2
    )
    torch.testing.assert_close(got.item(), float(np.mean(expected)))


def test_sorted_probability_ignores_who_is_first():
    _, teacher, _ = case()
    reverse = teacher.flip(1)
    got = transport.sorted_probability(reverse, teacher, full(6, 5))
    torch.testing.assert_close(got, torch.zeros_like(got))


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_masked_candidates_change_nothing(objective, poison):
    student, teacher, mask = case()
    results = []
    for value in (0.0, poison):
        scores = student.masked_fill(~mask, value).requires_grad_()
        loss = objective(scores, teacher.masked_fill(~mask, value), mask)
        results.append((loss.detach(), torch.autograd.grad(loss, scores)[0]))
    assert results[0][0].isfinite() and results[0][0] > 0
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("objective", ALL)
def test_gradients_equal_finite_differences(objective):
    student, teacher, mask = case()
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher, mask), student.requires_grad_())


@pytest.mark.parametrize("objective", ALL)
def test_constant_scores_and_empty_batches_are_finite(objective):
    student = torch.zeros(3, 4, requires_grad=True)
    teacher = torch.tensor([[2.0] * 4, [1.0, -INF, -INF, -INF], [-INF] * 4])
    for mask in (full(3, 4), ~full(3, 4)):
        loss = objective(student, teacher, mask)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite() and gradient.isfinite().all()
    assert loss == 0
