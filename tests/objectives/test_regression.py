"""Regression objectives against Sentence Transformers' losses, NumPy and formulas written out."""

from __future__ import annotations

import numpy as np
import torch

from retrieval_kd import objectives
from tests.objectives.cases import INFINITY, matrices
from tests.objectives.peers import losses, on_pairs


def test_mse_equals_sentence_transformers():
    student, teacher, mask = matrices()
    expected = on_pairs(losses.MSELoss, student, teacher, mask)
    torch.testing.assert_close(objectives.mse(student, teacher, mask), expected)


def test_bce_equals_sentence_transformers():
    student, teacher, mask = matrices()
    expected = on_pairs(losses.BinaryCrossEntropyLoss, student, torch.sigmoid(teacher), mask)
    torch.testing.assert_close(objectives.bce(student, teacher, mask), expected)


def test_temperatures_divide():
    student, teacher, mask = matrices()
    expected = objectives.bce(student / 0.05, teacher / 3, mask)
    got = objectives.bce(student, teacher, mask, student_temperature=0.05, teacher_temperature=3)
    torch.testing.assert_close(got, expected)
    got = objectives.mse(student, teacher, mask, student_temperature=0.05)
    torch.testing.assert_close(got, objectives.mse(student / 0.05, teacher, mask))


def test_mse_leaves_unscored_candidates_out():
    student, mask = torch.tensor([[1.0, 5.0]]), torch.ones(1, 2).bool()
    got = objectives.mse(student, torch.tensor([[3.0, -INFINITY]]), mask)
    assert got.item() == (1.0 - 3.0) ** 2


def test_bce_takes_unscored_candidates_for_irrelevant():
    student, mask = torch.tensor([[0.7]]), torch.ones(1, 1).bool()
    got = objectives.bce(student, torch.tensor([[-INFINITY]]), mask)
    torch.testing.assert_close(got, -torch.log(1 - torch.sigmoid(student)).sum())


def test_pearson_equals_numpy():
    student, teacher, mask = matrices()
    teacher[0, 0] = -INFINITY  # has no score to correlate
    scored = mask & teacher.isfinite()
    rows = zip(student.numpy(), teacher.numpy(), scored.numpy(), strict=True)
    expected = np.mean([1 - np.corrcoef(s[m], t[m])[0, 1] for s, t, m in rows])
    got = objectives.pearson(student, teacher, mask)
    np.testing.assert_allclose(got.item(), expected, rtol=1e-5)


def test_pearson_leaves_out_constant_queries():
    student, teacher, mask = matrices()
    expected = objectives.pearson(student[:4], teacher[:4], mask[:4])
    teacher[4], student[5] = 0.1, 0.1
    torch.testing.assert_close(objectives.pearson(student, teacher, mask), expected)
