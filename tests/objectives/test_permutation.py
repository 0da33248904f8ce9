"""Objectives on orders against Sentence Transformers' losses and loops over places."""

from __future__ import annotations

import math

import pytest
import torch

from retrieval_kd import objectives
from tests.objectives.cases import INFINITY, matrices
from tests.objectives.peers import losses, on_lists

ALL = [
    objectives.partial_plackett_luce,
    objectives.rank_contrast,
]


def choices(student_row, teacher_row, mask_row):
    """(teacher's score, log P(chosen before all the teacher ranks lower)), best first."""
    columns = mask_row.nonzero().flatten().tolist()
    s, t = student_row.tolist(), teacher_row.tolist()
    result = []
    for i in sorted(columns, key=lambda j: -t[j]):
        rivals = [i] + [j for j in columns if t[j] < t[i]]
        result.append((t[i], s[i] - math.log(sum(math.exp(s[j]) for j in rivals))))
    return result


def test_partial_plackett_luce_of_all_places_equals_list_mle_of_sentence_transformers():
    student, teacher, mask = matrices()
    expected = on_lists(losses.ListMLELoss, student, teacher, mask, respect_input_order=False)
    got = objectives.partial_plackett_luce(student, teacher, mask, top_k=student.shape[1])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_partial_plackett_luce_is_the_likelihood_of_the_first_places(top_k):
    student, teacher, mask = matrices()
    terms = [
        -sum(log for _, log in choices(*row)[:top_k])
        for row in zip(student, teacher, mask, strict=True)
    ]
    got = objectives.partial_plackett_luce(student, teacher, mask, top_k=top_k)
    torch.testing.assert_close(got, torch.tensor(sum(terms) / len(terms)))


def test_rank_contrast_equals_a_loop():
    student, teacher, mask = matrices()
    student, teacher = student / 0.5, teacher / 2
    terms = []
    for row in zip(student, teacher, mask, strict=True):
        chosen = choices(*row)
        total = sum(math.exp(t) for t, _ in chosen)
        terms.append(-sum(math.exp(t) / total * log for t, log in chosen))
    settings = {"student_temperature": 0.5, "teacher_temperature": 2.0}
    got = objectives.rank_contrast(student * 0.5, teacher * 2, mask, **settings)
    torch.testing.assert_close(got, torch.tensor(sum(terms) / len(terms)))


def test_tied_candidates_are_not_compared():
    student, mask = torch.tensor([[1.0, 2.0, 0.0]]), torch.ones(1, 3).bool()
    e = torch.exp(student[0])
    expected = -torch.log(e[0] / (e[0] + e[2])) - torch.log(e[1] / (e[1] + e[2]))
    got = objectives.partial_plackett_luce(student, torch.tensor([[5.0, 5.0, 1.0]]), mask)
    torch.testing.assert_close(got, expected)


def test_unscored_candidates_come_after_all_scored_ones():
    student, mask = torch.tensor([[1.0, 2.0, 0.0, 3.0]]), torch.ones(1, 4).bool()
    e = torch.exp(student[0])
    teacher = torch.tensor([[5.0, 1.0, -INFINITY, -INFINITY]])
    expected = -torch.log(e[0] / e.sum()) - torch.log(e[1] / e[1:].sum())
    got = objectives.partial_plackett_luce(student, teacher, mask)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("objective", ALL)
def test_a_single_scored_candidate_is_put_before_unscored_ones(objective):
    student, mask = torch.tensor([[1.0, 2.0, 0.0]]), torch.ones(1, 3).bool()
    teacher = torch.tensor([[-3.0, -INFINITY, -INFINITY]])
    expected = -torch.log_softmax(student[0], 0)[0]
    torch.testing.assert_close(objective(student, teacher, mask), expected)


@pytest.mark.parametrize("objective", ALL)
def test_queries_without_an_order_are_left_out(objective):
    student, teacher, mask = matrices()
    expected = objective(student[:4], teacher[:4], mask[:4])
    teacher[4], teacher[5] = 1.0, -INFINITY
    torch.testing.assert_close(objective(student, teacher, mask), expected)
