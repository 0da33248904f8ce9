"""Adaptive forms of `kl` against `kl`, torch's own losses and formulas written out."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.nn.functional import kl_div

from retrieval_kd.objectives import contrastive, listwise, pairwise

NAN, INF = float("nan"), float("inf")
ALL = [
    listwise.taid,
    functools.partial(listwise.taid, progress=0.3),
    listwise.dynamic_difficulty,
    functools.partial(listwise.dynamic_difficulty, focus=0.5),
]


def full(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, teacher, mask and labels; the last rows: no positive, one candidate, nothing."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    teacher = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 2
    mask = torch.rand(6, 5, generator=generator) > 0.2
    mask[:, :2], mask[4, 1:], mask[5] = True, False, False
    labels = torch.tensor([[1, 0, 0, 0, 0], [2, 1, 0, 0, 0], [0, 1, 0, 0, 0]] + [[0] * 5] * 3)
    return student, teacher, mask, labels


def divergences(student, target, mask):
    """KL of each row's target probabilities to the student's softmax, over unmasked candidates."""
    return torch.stack(
        [
            kl_div(s[m].log_softmax(0), t[m], reduction="sum")
            for s, t, m in zip(student, target, mask, strict=True)
            if m.sum() >= 2
        ]
    )


def softmax(scores, mask):
    return scores.masked_fill(~mask, -INF).softmax(-1).nan_to_num(0)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.4), (0.5, 0.7)])
def test_taid_learns_a_target_between_its_own_and_the_teachers(progress, share):
    student, teacher, mask, _ = case()
    mixed = (1 - share) * student / 0.5 + share * teacher / 2
    expected = divergences(student / 0.5, softmax(mixed, mask), mask).mean()
    student.requires_grad_()
    got = listwise.taid(
        student, teacher, mask, progress=progress, student_temperature=0.5, teacher_temperature=2
    )
    torch.testing.assert_close(got, expected)
    # the target does not move: ∂/∂s of a cross-entropy is softmax(s) − target
    (gradient,) = torch.autograd.grad(got, student)
    wanted = softmax(student.detach() / 0.5, mask) - softmax(mixed, mask)
    rows = mask.sum(-1, keepdim=True) >= 2
    torch.testing.assert_close(gradient, wanted / 0.5 * rows / rows.sum())


def test_taid_ends_as_kl_and_never_gives_back_what_the_teacher_excluded():
    student, teacher, mask, _ = case()
    teacher[0, 1] = -INF
    got = listwise.taid(student, teacher, mask)
    torch.testing.assert_close(got, listwise.kl(student, teacher, mask))
    for progress in (0.0, 0.5):
        scores = student.clone().requires_grad_()
        listwise.taid(scores, teacher, mask, progress=progress, start=0.0).backward()
        assert scores.grad[0, 1] > 0 and scores.grad.isfinite().all()


@pytest.mark.parametrize("focus", [0.0, 0.5, 2.0])
def test_dynamic_difficulty_weights_each_query_by_its_distance(focus):
    student, teacher, mask, _ = case()
    per_query = divergences(student, softmax(teacher, mask), mask)
    expected = ((1 - (-per_query).exp()) ** focus * per_query).mean()
    got = listwise.dynamic_difficulty(student, teacher, mask, focus=focus)
    torch.testing.assert_close(got, expected)


def test_dynamic_difficulty_of_a_certain_teacher_is_the_focal_loss():
    student = torch.randn(5, 4, dtype=torch.float64)
    teacher = torch.full((5, 4), -INF, dtype=torch.float64)
    teacher[:, 2] = 1.0
    p = student.softmax(-1)[:, 2]
    got = listwise.dynamic_difficulty(student, teacher, full(5, 4), focus=2.0)
    torch.testing.assert_close(got, (-((1 - p) ** 2) * p.log()).mean())


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_masked_candidates_change_nothing(objective, poison):
    student, teacher, mask, _ = case()
    results = []
    for value in (0.0, poison):
        scores = student.masked_fill(~mask, value).requires_grad_()
        loss = objective(scores, teacher.masked_fill(~mask, value), mask)
        results.append((loss.detach(), torch.autograd.grad(loss, scores)[0]))
    assert results[0][0].isfinite() and results[0][0] > 0
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    "objective", [o for o in ALL if getattr(o, "func", None) is not listwise.taid]
)
def test_gradients_equal_finite_differences(objective):
    """Not of `taid` on its way: its target is held still, which finite differences cannot."""
    student, teacher, mask, _ = case()
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher, mask), student.requires_grad_())


@pytest.mark.parametrize("objective", ALL)
def test_constant_scores_and_minus_infinity_are_finite(objective):
    student = torch.zeros(4, 4, requires_grad=True)
    teacher = torch.tensor([[2.0] * 4, [1.0, -INF, -INF, -INF], [-INF] * 4, [0.0] * 4])
    mask = full(4, 4)
    mask[3] = False
    loss = objective(student, teacher, mask)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize(
    "objective",
    [contrastive.weighted_infonce, pairwise.bpr, *ALL],
)
def test_a_teacher_trained_jointly_gets_finite_gradients(objective):
    student, teacher, mask, _ = case()
    teacher[0, 1] = -INF
    objective(student, teacher.requires_grad_(), mask).backward()
    assert teacher.grad.isfinite().all() and (teacher.grad != 0).any()
