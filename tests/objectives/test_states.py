"""Objectives on states inside the models, against loops written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from retrieval_kd.objectives import states
from tests.objectives.test_vectors import check, vectors

NAN, INF = float("nan"), float("inf")


def texts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student (3, 5, 4) and teacher (3, 5, 6) token vectors; texts of 5, 3 and 1 tokens."""
    attention = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    return vectors(3, 5, 4), vectors(3, 5, 6, seed=1), attention


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_hidden_states_follow_the_layer_map(distance):
    _, _, attention = texts()
    student, teacher = list(vectors(3, 3, 5, 6)), list(vectors(5, 3, 5, 6, seed=1))
    real = attention.bool()
    expected = []
    for i, j in [(1, 2), (2, 4)]:
        own, other = student[i][real], teacher[j][real]
        if distance == "mse":
            expected.append(((own - other) ** 2).mean())
        else:
            expected.append(1 - cosine_similarity(own, other, dim=-1).mean())
    got = states.hidden_states(
        student, teacher, attention, layers=[(1, 2), (2, 4)], distance=distance
    )
    torch.testing.assert_close(got, torch.stack(expected).mean())
    check(
        lambda s: states.hidden_states([s], teacher, attention, layers=[(0, 3)], distance=distance),
        student[0],
    )


def test_feature_imitation_compares_similarities_of_existing_candidates():
    student, teacher = vectors(4, 5, 3), vectors(4, 5, 6, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 0], [0] * 5]).bool()
    per_query = []
    for s, t, m in zip(student[:2], teacher[:2], mask[:2], strict=True):
        s, t = s[m], t[m]
        gaps = [
            (cosine_similarity(s[i], s[j], dim=0) - cosine_similarity(t[i], t[j], dim=0)) ** 2
            for i in range(len(s))
            for j in range(len(s))
        ]
        per_query.append(torch.stack(gaps).mean())
    got = states.feature_imitation(student, teacher, mask)
    torch.testing.assert_close(got, torch.stack(per_query).mean())
    assert states.feature_imitation(2 * teacher, teacher, mask) < 1e-12
    check(states.feature_imitation, student, teacher, mask)


def on_hidden_states(student, teacher, attention):
    return states.hidden_states([student], [teacher[..., :4]], attention, layers=[(0, 0)])


def on_candidates(student, teacher, attention):
    return states.feature_imitation(student, teacher, attention.bool())


@pytest.mark.parametrize("objective", [on_hidden_states, on_candidates])
@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_padding_changes_nothing(objective, poison):
    student, teacher, attention = texts()
    attention = torch.cat([attention, torch.zeros(1, 5, dtype=torch.long)])  # and an empty row
    padding = ~attention.bool()[..., None]
    results = []
    for value in (0.0, poison):
        own = torch.cat([student, student[:1]]).masked_fill(padding, value).requires_grad_()
        loss = objective(
            own, torch.cat([teacher, teacher[:1]]).masked_fill(padding, value), attention
        )
        results.append((loss.detach(), torch.autograd.grad(loss, own)[0]))
    assert results[0][0].isfinite() and results[0][0] > 0
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
