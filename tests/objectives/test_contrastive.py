"""Contrastive objectives against Sentence Transformers' losses and formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from sentence_transformers.sentence_transformer import losses as peers
from torch.nn.functional import cross_entropy, normalize

from retrieval_kd.objectives import contrastive
from tests.objectives.cases import matrices

NAN, INF = float("nan"), float("inf")
ALL = [
    contrastive.infonce,
    contrastive.weighted_infonce,
]


class Given(torch.nn.Module):
    """Stands where a peer's loss expects a model: gives back the embeddings it is handed."""

    similarity_fn_name = "cosine"

    def __init__(self, key: str = "student") -> None:
        super().__init__()
        self.key = key

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features[self.key]}

    def __getitem__(self, _: int) -> Given:
        return self


def vectors(count: int, seed: int = 3, rows: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 6, generator=generator) for _ in range(count)]


def full(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def cosines(queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    return normalize(queries, dim=-1) @ normalize(documents, dim=-1).T


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, teacher, mask and labels; the last rows: one candidate, no positive, nothing."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    teacher = torch.randn(5, 6, generator=generator, dtype=torch.float64) * 2
    mask = torch.rand(5, 6, generator=generator) > 0.2
    mask[:, 0], mask[2, 1:], mask[4] = True, False, False
    labels = (torch.rand(5, 6, generator=generator) > 0.7).long()
    labels[0, :2], labels[3] = 1, 0
    return student, teacher, mask, labels


@pytest.mark.parametrize("peer", ["MultipleNegativesRankingLoss", "Cached"])
def test_infonce_equals_sentence_transformers_with_hard_negatives(peer):
    queries, right, wrong = vectors(3)
    if peer == "Cached":  # chunked, but the same number
        loss = peers.CachedMultipleNegativesRankingLoss(Given(), scale=20.0, mini_batch_size=2)
        expected = loss.calculate_loss([[e] for e in (queries, right, wrong)])
    else:
        loss = peers.MultipleNegativesRankingLoss(Given(), scale=20.0)
        expected = loss.compute_loss_from_embeddings([queries, right, wrong], labels=None)
    scores = cosines(queries, torch.cat([right, wrong]))  # (5, 10)
    labels = torch.eye(5, 10)
    got = contrastive.infonce(
        scores, scores * NAN, full(5, 10), labels=labels, student_temperature=0.05
    )
    torch.testing.assert_close(got, expected)


def test_infonce_leaves_other_positives_out_of_the_denominator():
    student, labels = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1, 1, 0]])
    e = torch.exp(student[0])
    expected = -(torch.log(e[0] / (e[0] + e[2])) + torch.log(e[1] / (e[1] + e[2]))) / 2
    got = contrastive.infonce(student, student, torch.ones(1, 3, dtype=torch.bool), labels=labels)
    torch.testing.assert_close(got, expected)


def test_without_labels_column_0_is_the_positive():
    student = torch.randn(4, 5)
    expected = cross_entropy(student / 0.3, torch.zeros(4, dtype=torch.long))
    got = contrastive.infonce(student, student * NAN, full(4, 5), student_temperature=0.3)
    torch.testing.assert_close(got, expected)


def test_weighted_infonce_multiplies_scores_by_the_teachers_probabilities():
    student, teacher = vectors(2, rows=3)
    tau, teacher_tau = 0.7, 2.0
    losses = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        yes = [1 / (1 + math.exp(-x / teacher_tau)) for x in t]
        scores = [yes[0] * s[0]] + [(1 - p) * x for p, x in zip(yes[1:], s[1:], strict=True)]
        parts = [math.exp(x / tau) for x in scores]
        losses.append(-math.log(parts[0] / sum(parts)))
    got = contrastive.weighted_infonce(
        student, teacher, full(3, 6), student_temperature=tau, teacher_temperature=teacher_tau
    )
    torch.testing.assert_close(got, torch.tensor(sum(losses) / 3))


def choices(student_row, teacher_row, mask_row):
    """(teacher's score, log P(chosen before all the teacher ranks lower)), best first."""
    columns = mask_row.nonzero().flatten().tolist()
    s, t = student_row.tolist(), teacher_row.tolist()
    result = []
    for i in sorted(columns, key=lambda j: -t[j]):
        rivals = [i] + [j for j in columns if t[j] < t[i]]
        result.append((t[i], s[i] - math.log(sum(math.exp(s[j]) for j in rivals))))
    return result


def test_rank_contrast_equals_a_loop():
    student, teacher, mask = matrices()
    student, teacher = student / 0.5, teacher / 2
    terms = []
    for row in zip(student, teacher, mask, strict=True):
        chosen = choices(*row)
        total = sum(math.exp(t) for t, _ in chosen)
        terms.append(-sum(math.exp(t) / total * log for t, log in chosen))
    settings = {"student_temperature": 0.5, "teacher_temperature": 2.0}
    got = contrastive.rank_contrast(student * 0.5, teacher * 2, mask, **settings)
    torch.testing.assert_close(got, torch.tensor(sum(terms) / len(terms)))


def test_tied_candidates_are_not_compared():
    student, mask = torch.tensor([[1.0, 2.0, 0.0]]), torch.ones(1, 3).bool()
    e, teacher = torch.exp(student[0]), torch.tensor([[5.0, 5.0, 1.0]])
    w = teacher[0].softmax(0)
    expected = -w[0] * torch.log(e[0] / (e[0] + e[2])) - w[1] * torch.log(e[1] / (e[1] + e[2]))
    got = contrastive.rank_contrast(student, teacher, mask)
    torch.testing.assert_close(got, expected)


def test_unscored_candidates_come_after_all_scored_ones():
    student, mask = torch.tensor([[1.0, 2.0, 0.0, 3.0]]), torch.ones(1, 4).bool()
    e = torch.exp(student[0])
    teacher = torch.tensor([[5.0, 1.0, -INF, -INF]])
    w = teacher[0].softmax(0)
    expected = -w[0] * torch.log(e[0] / e.sum()) - w[1] * torch.log(e[1] / e[1:].sum())
    got = contrastive.rank_contrast(student, teacher, mask)
    torch.testing.assert_close(got, expected)


def test_a_single_scored_candidate_is_put_before_unscored_ones():
    student, mask = torch.tensor([[1.0, 2.0, 0.0]]), torch.ones(1, 3).bool()
    teacher = torch.tensor([[-3.0, -INF, -INF]])
    expected = -torch.log_softmax(student[0], 0)[0]
    torch.testing.assert_close(contrastive.rank_contrast(student, teacher, mask), expected)


def test_rank_contrast_leaves_queries_without_an_order_out():
    student, teacher, mask = matrices()
    expected = contrastive.rank_contrast(student[:4], teacher[:4], mask[:4])
    teacher[4], teacher[5] = 1.0, -INF
    torch.testing.assert_close(contrastive.rank_contrast(student, teacher, mask), expected)


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("poison", [NAN, INF, -INF])
@pytest.mark.parametrize("judged", [True, False])
def test_masked_candidates_change_nothing(objective, poison, judged):
    student, teacher, mask, labels = case()
    settings = {"labels": labels} if judged else {}
    results = []
    for value in (0.0, poison):
        scores = student.masked_fill(~mask, value).requires_grad_()
        loss = objective(scores, teacher.masked_fill(~mask, value), mask, **settings)
        results.append((loss.detach(), torch.autograd.grad(loss, scores)[0]))
    assert results[0][0].isfinite() and results[0][0] > 0
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("judged", [True, False])
def test_gradients_equal_finite_differences(objective, judged):
    student, teacher, mask, labels = case()
    settings = {"labels": labels} if judged else {}
    assert torch.autograd.gradcheck(
        lambda s: objective(s, teacher, mask, **settings), student.requires_grad_()
    )


@pytest.mark.parametrize("objective", ALL)
def test_constant_scores_and_minus_infinity_are_finite(objective):
    student = torch.zeros(3, 4, requires_grad=True)
    teacher = torch.tensor([[2.0] * 4, [1.0, -INF, -INF, -INF], [-INF] * 4])
    loss = objective(student, teacher, full(3, 4))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()
