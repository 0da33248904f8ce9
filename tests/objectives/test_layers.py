"""The objective on layers against a formula written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from retrieval_kd.objectives.layers import layer_relevance
from tests.objectives.test_vectors import check, vectors


def test_layer_relevance_weights_layers_by_how_well_the_teacher_ranks_there():
    student, teacher = vectors(3, 4, 5), 2 * vectors(3, 4, 5, seed=1)
    mask, labels = torch.ones(4, 5, dtype=torch.bool), torch.eye(4, 5)
    relevant = torch.arange(4)
    quality = torch.stack([-cross_entropy(t, relevant) for t in teacher])
    divergence = torch.stack(
        [
            torch.nn.functional.kl_div(
                (s / 0.5).log_softmax(-1), (t / 2).softmax(-1), reduction="batchmean"
            )
            for s, t in zip(student, teacher, strict=True)
        ]
    )
    expected = ((quality / 0.3).softmax(0) * divergence).sum()
    settings = {"student_temperature": 0.5, "teacher_temperature": 2, "layer_temperature": 0.3}
    got = layer_relevance(student, teacher, mask, labels=labels, **settings)
    torch.testing.assert_close(got, expected)
    as_lists = layer_relevance(list(student), list(teacher), mask, labels=labels)
    alike = layer_relevance(student, teacher, mask, labels=labels, layer_temperature=1e9)
    assert as_lists != alike
    # a common order of layers does not matter
    order = torch.tensor([2, 0, 1])
    moved = layer_relevance(student[order], teacher[order], mask, labels=labels)
    torch.testing.assert_close(moved, as_lists)
    check(layer_relevance, student, teacher, mask)


def test_layer_relevance_needs_as_many_layers_on_both_sides():
    with pytest.raises(ValueError, match="shorter"):
        layer_relevance(vectors(3, 4, 5), vectors(2, 4, 5), torch.ones(4, 5, dtype=torch.bool))
