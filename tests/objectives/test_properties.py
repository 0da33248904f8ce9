"""What every exported objective must keep, and what each one's docstring claims of itself.

An objective added to `objectives.__all__` is tested by itself; its claims belong in `CLAIMS`.
"""

from __future__ import annotations

import inspect
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd import objectives
from tests.objectives.cases import INFINITY, batches

FUNCTIONS = {name: getattr(objectives, name) for name in objectives.__all__}
POISON = [float("nan"), INFINITY, -INFINITY, 1e30]


class Claims(NamedTuple):
    """What a docstring promises beyond what holds for all."""

    student_shift: bool = True  # a constant added to a student row changes nothing
    teacher_shift: bool = True
    student_scale: bool = False  # nor does a positive factor
    teacher_scale: bool = False
    teacher_order: bool = False  # only the order of the teacher's scores counts
    zero: bool = False  # zero where student equals teacher, and nowhere below
    still: bool = False  # zero gradient there
    needs_two: bool = True  # a query with one candidate teaches nothing


DIVERGENCE = Claims(zero=True, still=True)
FROM_ORDER = Claims(teacher_scale=True, teacher_order=True)
FROM_LABELS = Claims(teacher_scale=True, teacher_order=True)  # the teacher is not even read
CLAIMS = {
    "adaptive_margin": DIVERGENCE,
    "bce": Claims(student_shift=False, teacher_shift=False, still=True, needs_two=False),
    "bpr": Claims(teacher_shift=False),
    "dynamic_difficulty": DIVERGENCE,
    "infonce": FROM_LABELS,
    "jsd": DIVERGENCE,
    "kl": DIVERGENCE,
    "margin_mse": DIVERGENCE,
    "mse": DIVERGENCE._replace(student_shift=False, teacher_shift=False, needs_two=False),
    "pair_kl": DIVERGENCE,
    "pearson": DIVERGENCE._replace(student_scale=True, teacher_scale=True),
    "preference": FROM_ORDER,
    "rank_contrast": Claims(),
    "ranknet": FROM_ORDER,
    "reverse_kl": DIVERGENCE,
    "sinkhorn": Claims(),
    "skew_kl": DIVERGENCE,
    "skew_pair": DIVERGENCE,
    "sorted_probability": Claims(zero=True),
    "taid": DIVERGENCE,
    "weighted_infonce": Claims(student_shift=False, teacher_shift=False),
}
POSITIVE_FIRST = ("adaptive_margin", "margin_mse")  # column 0 must be the positive
NO_CLAIMS = Claims(student_shift=False, teacher_shift=False, needs_two=False)


def claiming(claim: str) -> list[str]:
    return [name for name in FUNCTIONS if getattr(CLAIMS.get(name, NO_CLAIMS), claim)]


def every(names=tuple(FUNCTIONS)):
    return pytest.mark.parametrize("name", names)


def evaluate(name, student, teacher, mask, labels):
    objective = FUNCTIONS[name]
    judged = "labels" in inspect.signature(objective).parameters
    return objective(student, teacher, mask, **({"labels": labels} if judged else {}))


def value_and_gradient(name, student, teacher, mask, labels):
    student = student.clone().requires_grad_()
    loss = evaluate(name, student, teacher, mask, labels)
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.detach(), gradient


def test_claims_are_of_objectives_that_exist():
    assert set(CLAIMS) <= set(FUNCTIONS)


@every()
def test_objectives_have_one_signature(name):
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters.values())
    assert [p.name for p in parameters[:3]] == ["student", "teacher", "mask"]
    assert all(p.kind == p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[3:])


@every()
@settings(max_examples=12, deadline=None)
@given(
    batch=batches(unscored=True), poison=st.tuples(st.sampled_from(POISON), st.sampled_from(POISON))
)
def test_masked_candidates_change_nothing(name, batch, poison):
    student, teacher, mask, labels = batch
    clean = value_and_gradient(name, student, teacher, mask, labels)
    poisoned = value_and_gradient(
        name,
        student.masked_fill(~mask, poison[0]),
        teacher.masked_fill(~mask, poison[1]),
        mask,
        labels.masked_fill(~mask, 1),
    )
    assert torch.equal(clean[0], poisoned[0])
    assert torch.equal(clean[1], poisoned[1])
    assert (clean[1][~mask] == 0).all()


@every()
@settings(max_examples=12, deadline=None)
@given(batch=batches(unscored=True), seed=st.integers(0, 99))
def test_the_order_of_candidates_does_not_matter(name, batch, seed):
    columns = batch[0].shape[1]
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(seed))
    if name in POSITIVE_FIRST:
        order = torch.cat([torch.zeros(1, dtype=order.dtype), order[order != 0]])
    got = evaluate(name, *(matrix[:, order] for matrix in batch))
    torch.testing.assert_close(got, evaluate(name, *batch))


@every()
@settings(max_examples=12, deadline=None)
@given(batch=batches(unscored=True))
def test_losses_and_gradients_are_finite_with_unscored_candidates(name, batch):
    student, teacher, mask, labels = batch
    student, teacher = student.clone().requires_grad_(), teacher.clone()
    teacher[-1] = -INFINITY  # nothing known of this query
    teacher.requires_grad_()  # as with a live teacher
    loss = evaluate(name, student, teacher, mask, labels)
    gradients = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert loss.isfinite()
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@every()
@settings(max_examples=4, deadline=None)
@given(batch=batches(unscored=True))
def test_gradients_equal_finite_differences(name, batch):
    student, *others = batch
    assert torch.autograd.gradcheck(
        lambda scores: evaluate(name, scores, *others), student.clone().requires_grad_()
    )


@every()
@pytest.mark.parametrize("factor", [0.0, 1e3], ids=["constant", "huge"])
@pytest.mark.parametrize("taught", [0.0, 1e3], ids=["constant_teacher", "huge_teacher"])
def test_losses_are_finite_on_constant_and_huge_scores(name, factor, taught):
    generator = torch.Generator().manual_seed(1)
    student = (torch.randn(4, 5, generator=generator) * factor).requires_grad_()
    teacher = torch.randn(4, 5, generator=generator) * taught + 2.0
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0] * 5]).bool()
    labels = torch.tensor([[1, 0, 0, 1, 0]]).expand(4, 5)
    loss = evaluate(name, student, teacher, mask, labels)
    loss.backward()
    assert loss.isfinite() and loss.dtype == torch.float32
    assert student.grad.isfinite().all()
    assert (student.grad[3] == 0).all()


@every()
def test_a_batch_without_candidates_teaches_nothing(name):
    student, mask = torch.ones(2, 3), torch.zeros(2, 3).bool()
    loss, gradient = value_and_gradient(name, student, student, mask, torch.ones(2, 3).long())
    assert loss == 0 and (gradient == 0).all()


@every(claiming("needs_two"))
@pytest.mark.parametrize("score", [-INFINITY, 3.0])
def test_a_single_candidate_teaches_nothing(name, score):
    student, teacher = torch.ones(2, 3), torch.full((2, 3), score)
    mask = torch.tensor([[True, False, False]] * 2)
    loss, gradient = value_and_gradient(name, student, teacher, mask, torch.ones(2, 3).long())
    assert loss == 0 and (gradient == 0).all()


@every(claiming("student_shift"))
@settings(max_examples=8, deadline=None)
@given(batch=batches(unscored=True), shift=st.floats(-50, 50))
def test_a_constant_added_to_the_student_changes_nothing(name, batch, shift):
    student, *others = batch
    by_row = shift * torch.arange(1, len(student) + 1).unsqueeze(-1)  # another for each query
    got = evaluate(name, student + by_row, *others)
    torch.testing.assert_close(got, evaluate(name, student, *others))


@every(claiming("teacher_shift"))
@settings(max_examples=8, deadline=None)
@given(batch=batches(unscored=True), shift=st.floats(-50, 50))
def test_a_constant_added_to_the_teacher_changes_nothing(name, batch, shift):
    student, teacher, *others = batch
    by_row = (shift * torch.arange(1, len(student) + 1)).round().unsqueeze(-1)  # keeps ties ties
    got = evaluate(name, student, teacher + by_row, *others)
    torch.testing.assert_close(got, evaluate(name, student, teacher, *others))


@every(claiming("student_scale"))
@settings(max_examples=8, deadline=None)
@given(batch=batches(unscored=True), scale=st.floats(0.1, 50))
def test_a_factor_on_the_student_changes_nothing(name, batch, scale):
    student, *others = batch
    got = evaluate(name, student * scale, *others)
    torch.testing.assert_close(got, evaluate(name, student, *others))


@every(claiming("teacher_scale"))
@settings(max_examples=8, deadline=None)
@given(batch=batches(unscored=True), scale=st.floats(0.1, 50))
def test_a_factor_on_the_teacher_changes_nothing(name, batch, scale):
    student, teacher, *others = batch
    got = evaluate(name, student, teacher * scale, *others)
    torch.testing.assert_close(got, evaluate(name, student, teacher, *others))


@every(claiming("teacher_order"))
@settings(max_examples=8, deadline=None)
@given(batch=batches(unscored=True))
def test_only_the_teachers_order_counts(name, batch):
    student, teacher, *others = batch
    risen = torch.where(teacher > 0, teacher.square(), teacher / 2)  # rising, not linear
    got = evaluate(name, student, risen, *others)
    torch.testing.assert_close(got, evaluate(name, student, teacher, *others))


@every(claiming("zero"))
@settings(max_examples=8, deadline=None)
@given(batch=batches())
def test_zero_where_the_student_is_the_teacher_and_nowhere_below(name, batch):
    student, teacher, *others = batch
    at_teacher = evaluate(name, teacher, teacher, *others)
    torch.testing.assert_close(at_teacher, torch.zeros_like(at_teacher))
    assert evaluate(name, student, teacher, *others) > -1e-12  # rounding


@every(claiming("still"))
@settings(max_examples=8, deadline=None)
@given(batch=batches())
def test_no_gradient_where_the_student_is_the_teacher(name, batch):
    _, teacher, *others = batch
    _, gradient = value_and_gradient(name, teacher, teacher, *others)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
