"""Objectives on states inside the models, against loops written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from retrieval_kd.errors import InputError
from retrieval_kd.objectives import states
from tests.objectives.test_vectors import check, vectors

NAN, INF = float("nan"), float("inf")


def texts() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student (3, 5, 4) and teacher (3, 5, 6) token vectors; texts of 5, 3 and 1 tokens."""
    attention = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    return vectors(3, 5, 4), vectors(3, 5, 6, seed=1), attention


def greedy(similarity: torch.Tensor) -> list[tuple[int, int]]:
    rows, columns, taken = *map(set, map(range, similarity.shape)), []
    while rows and columns:
        i, j = max(((i, j) for i in rows for j in columns), key=lambda p: similarity[p])
        taken.append((i, j))
        rows.remove(i)
        columns.remove(j)
    return taken


def test_token_alignment_pairs_the_most_alike_tokens_first():
    student, teacher, student_mask = vectors(3, 5, 4), vectors(3, 7, 4, seed=1), texts()[2]
    teacher_mask = torch.tensor([[1, 1, 0, 0, 0, 0, 0], [1] * 7, [1, 1, 1, 1, 0, 0, 0]])
    aligned = []
    for s, t, m, n in zip(student, teacher, student_mask, teacher_mask, strict=True):
        cosines = cosine_similarity(s[m.bool()][:, None], t[n.bool()][None], dim=-1)
        aligned += [cosines[pair] for pair in greedy(cosines)]
    assert len(aligned) == 2 + 3 + 1
    got = states.token_alignment(student, teacher, student_mask, teacher_mask)
    torch.testing.assert_close(got, 1 - torch.stack(aligned).mean())
    check(states.token_alignment, student, teacher, student_mask, teacher_mask)


def test_token_alignment_does_not_mind_the_order_of_tokens():
    teacher, mask = vectors(2, 5, 4), torch.ones(2, 5)
    student = 2 * teacher[:, torch.tensor([3, 0, 4, 1, 2])]
    got = states.token_alignment(student, teacher, mask, mask)
    torch.testing.assert_close(got, torch.zeros_like(got))


def test_aligned_unit_vectors_are_compared_by_squared_error_up_to_a_factor():
    student, teacher = (x / x.norm(dim=-1, keepdim=True) for x in (vectors(1, 1, 4), texts()[0]))
    one = torch.ones(1, 1)
    got = states.token_alignment(student, teacher[:1, :1], one, one)
    torch.testing.assert_close(got * 2 / 4, ((student - teacher[:1, :1]) ** 2).mean())


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


@pytest.mark.parametrize("heads", [1, 2])
def test_relations_compare_how_tokens_attend_to_each_other(heads):
    student, teacher, attention = texts()
    terms = []
    for s, t, m in zip(student, teacher, attention.bool(), strict=True):
        if m.sum() < 2:
            continue
        for own, other in zip(s[m].chunk(heads, 1), t[m].chunk(heads, 1), strict=True):
            q = (own @ own.T / math.sqrt(own.shape[1])).softmax(-1)
            p = (other @ other.T / math.sqrt(other.shape[1])).softmax(-1)
            terms.append((p * (p / q).log()).sum(-1))
    got = states.relations(student, teacher, attention, heads=heads)
    torch.testing.assert_close(got, torch.cat(terms).mean())
    check(lambda s: states.relations(s, teacher, attention, heads=heads), student)


def test_relations_need_a_divisor_of_both_widths():
    student, teacher, attention = texts()
    with pytest.raises(InputError, match="width 6 cannot be cut into 4"):
        states.relations(student, teacher, attention, heads=4)


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


def on_tokens(student, teacher, attention):
    return states.token_alignment(student, teacher[..., :4], attention, attention)


def on_candidates(student, teacher, attention):
    return states.feature_imitation(student, teacher, attention.bool())


@pytest.mark.parametrize(
    "objective", [on_hidden_states, states.relations, on_tokens, on_candidates]
)
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
