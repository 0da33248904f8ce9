"""Several teachers (who is kept, and the KL of those) or layers at once."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from retrieval_kd.objectives import kl
from retrieval_kd.objectives.several import layer_relevance, reinforced_teachers, teacher_dropping
from tests.objectives.test_vectors import check, vectors

B, N, T = 5, 4, 3


@pytest.fixture
def data():
    torch.manual_seed(0)
    student, teachers = torch.randn(B, N), torch.randn(T, B, N)
    return student, teachers, torch.ones(B, N, dtype=torch.bool)


def rows(student, teacher, mask):
    """KL of each query alone."""
    parts = [kl(student[i : i + 1], teacher[i : i + 1], mask[i : i + 1]) for i in range(B)]
    return torch.stack(parts)


def test_without_dropping_all_teachers_count_alike(data):
    student, teachers, mask = data
    expected = torch.stack([kl(student, t, mask) for t in teachers]).mean()
    torch.testing.assert_close(teacher_dropping(student, teachers, mask, drop=0.0), expected)


def test_the_farthest_teacher_is_always_kept(data):
    student, teachers, mask = data
    expected = torch.stack([rows(student, t, mask) for t in teachers]).max(0).values.mean()
    torch.testing.assert_close(teacher_dropping(student, teachers, mask, drop=1.0), expected)


def test_half_are_dropped_on_average(data):
    student, teachers, mask = data
    losses = torch.stack([rows(student, t, mask) for t in teachers])
    low, high = losses.mean(), losses.max(0).values.mean()
    drawn = [teacher_dropping(student, teachers, mask) for _ in range(50)]
    assert low < torch.stack(drawn).mean() < high


def test_masked_entries_and_silent_teachers_change_nothing(data):
    student, teachers, mask = data
    mask = mask.clone()
    mask[:, -1] = False
    torch.manual_seed(1)
    before = teacher_dropping(student, teachers, mask, drop=0.0)
    student[:, -1], teachers[:, :, -1] = float("nan"), float("inf")
    silent = torch.full((1, B, N), float("nan"))
    student.requires_grad_()
    after = teacher_dropping(student, torch.cat([teachers, silent]), mask, drop=0.0)
    torch.testing.assert_close(after, before)
    after.backward()
    assert student.grad.isfinite().all() and (student.grad[:, -1] == 0).all()


def test_without_any_teacher_there_is_nothing_to_learn(data):
    student, teachers, mask = data
    student.requires_grad_()
    loss = teacher_dropping(student, teachers * float("nan"), mask)
    loss.backward()
    assert loss == 0 and (student.grad == 0).all()


def test_without_a_policy_every_teacher_is_learnt(data):
    student, teachers, mask = data
    expected = teacher_dropping(student, teachers, mask, drop=0.0)
    torch.testing.assert_close(reinforced_teachers(student, teachers, mask), expected)


def test_only_the_teachers_that_the_policy_chose_are_learnt(data):
    """The second query is taught by nobody and counts as zero."""
    student, teachers, mask = data
    chosen = torch.tensor([[1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 0, 0, 1, 1]], dtype=torch.bool)
    got = reinforced_teachers(
        student,
        teachers,
        mask,
        labels=torch.zeros(B, N),
        queries=torch.randn(B, 2),
        policy=lambda states, there, reward: (chosen, torch.zeros(())),
    )
    losses = torch.stack([rows(student, t, mask) for t in teachers])  # (T, B)
    counts = chosen.sum(0).clamp(min=1)
    torch.testing.assert_close(got, ((losses * chosen).sum(0) / counts).mean())


def test_a_state_holds_the_query_and_what_is_known_of_the_teacher(data):
    student, teachers, mask = data
    labels = torch.zeros(B, N)
    labels[0, 2] = labels[0, 3] = 1
    seen = {}

    def policy(states, there, reward):
        seen.update(states=states, there=there, reward=reward)
        return there, torch.zeros(())

    given = {"labels": labels, "queries": torch.tensor([[3.0, 4.0]] * B), "policy": policy}
    reinforced_teachers(student, teachers, mask, teacher_temperature=2.0, **given)
    states, there, reward = seen["states"], seen["there"], seen["reward"]
    assert states.shape == (T, B, 2 + 3) and there.all() and not states.requires_grad
    torch.testing.assert_close(states[1, 0, :2], torch.tensor([0.6, 0.8]))
    student_loss = kl(student[:1], teachers[1, :1], mask[:1], teacher_temperature=2.0)
    torch.testing.assert_close(states[1, 0, 2], student_loss)
    relevant = torch.softmax(teachers[1, 0] / 2, 0)[2:].sum()
    torch.testing.assert_close(states[1, 0, 3], -relevant.log())
    assert states[1, :, 4].tolist() == [1, 0, 0, 0, 0]  # only the first query is judged
    torch.testing.assert_close(reward, torch.softmax(student[0], 0)[2:].sum().log())
    given["labels"] = torch.zeros(B, N)
    reinforced_teachers(student, teachers, mask, **given)
    assert seen["reward"] is None


def test_a_teacher_that_ruled_the_relevant_out_has_the_worst_loss_and_no_nan(data):
    student, teachers, mask = data
    labels, seen = torch.zeros(B, N), {}
    labels[:, 0] = 1
    teachers[0, :, 0], teachers[1] = -torch.inf, torch.nan

    def policy(states, there, reward):
        seen.update(states=states, there=there)
        return there, torch.zeros(())

    student.requires_grad_()
    given = {"labels": labels, "queries": torch.randn(B, 2), "policy": policy}
    reinforced_teachers(student, teachers, mask, **given).backward()
    assert student.grad.isfinite().all() and seen["states"].isfinite().all()
    assert (seen["states"][0, :, 3] == 10).all()
    assert not seen["there"][1].any() and not seen["states"][1, :, 2:].any()


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
