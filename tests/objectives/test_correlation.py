"""Pearson's correlation as an objective, against NumPy."""

from __future__ import annotations

import numpy as np
import torch

from retrieval_kd import objectives
from tests.objectives.cases import INFINITY, matrices


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
