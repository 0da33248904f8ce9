"""Pairwise objectives against Sentence Transformers' losses and loops over pairs."""

from __future__ import annotations

import math

import torch
from sentence_transformers.sentence_transformer import losses as embedding_losses

from retrieval_kd import objectives
from tests.objectives.cases import INFINITY, matrices
from tests.objectives.peers import losses, on_lists


class _Passthrough(torch.nn.Module):
    """Stands where a peer's loss expects a model, so that its loss is fed our embeddings."""

    similarity_fn_name = "dot"


def pairs_of(mask_row):
    """All ordered pairs (i, j) of different unmasked columns."""
    columns = mask_row.nonzero().flatten().tolist()
    return [(i, j) for i in columns for j in columns if i != j]


def mean_over_pairs(student, teacher, mask, loss):
    """`loss(s_i, s_j, t_i, t_j)`, None for a pair that does not count, in a plain loop."""
    values = [
        loss(float(s[i]), float(s[j]), float(t[i]), float(t[j]))
        for s, t, m in zip(student, teacher, mask, strict=True)
        for i, j in pairs_of(m)
    ]
    values = [value for value in values if value is not None]
    return torch.tensor(sum(values) / len(values))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_margin_mse_equals_sentence_transformers():
    generator = torch.Generator().manual_seed(3)
    embeddings = [torch.randn(4, 8, generator=generator) for _ in range(5)]
    teacher = torch.randn(4, 4, generator=generator)
    peer = embedding_losses.MarginMSELoss(_Passthrough())
    expected = peer.compute_loss_from_embeddings(embeddings, teacher[:, :1] - teacher[:, 1:])
    student = torch.stack([(embeddings[0] * d).sum(-1) for d in embeddings[1:]], 1)  # (4, 4)
    mask = torch.ones(4, 4, dtype=torch.bool)
    torch.testing.assert_close(objectives.margin_mse(student, teacher, mask), expected)


def test_margin_mse_leaves_unscored_candidates_out():
    student, mask = torch.tensor([[1.0, 3.0, 7.0]]), torch.ones(1, 3).bool()
    teacher = torch.tensor([[2.0, 1.0, -INFINITY]])
    expected = ((1.0 - 3.0) - (2.0 - 1.0)) ** 2
    assert objectives.margin_mse(student, teacher, mask).item() == expected


def test_adaptive_margin_equals_the_formula_on_vectors():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    documents = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    terms = []
    for query, slate in zip(queries, documents, strict=True):
        for negative in slate[1:]:
            target = slate[0] @ slate[0] - slate[0] @ negative
            terms.append((query @ slate[0] - query @ negative - target) ** 2)
    scores = torch.einsum("bd,bnd->bn", queries, documents)
    to_positive = torch.einsum("bd,bnd->bn", documents[:, 0], documents)
    got = objectives.adaptive_margin(scores, to_positive, torch.ones(3, 5, dtype=torch.bool))
    torch.testing.assert_close(got, torch.stack(terms).mean())


def test_a_query_at_its_positive_document_has_nothing_to_learn():
    documents = torch.randn(2, 4, 3)
    to_positive = torch.einsum("bd,bnd->bn", documents[:, 0], documents)
    got = objectives.adaptive_margin(to_positive, to_positive, torch.ones(2, 4, dtype=torch.bool))
    assert got == 0


def test_ranknet_equals_sentence_transformers():
    student, teacher, mask = matrices()
    expected = on_lists(losses.RankNetLoss, student, teacher, mask, reduction_log="natural")
    torch.testing.assert_close(objectives.ranknet(student, teacher, mask), expected)


def test_ranknet_puts_scored_candidates_before_unscored_ones():
    student, mask = torch.tensor([[1.0, 3.0, 7.0]]), torch.ones(1, 3).bool()
    teacher = torch.tensor([[-5.0, -INFINITY, -INFINITY]])
    expected = (math.log1p(math.exp(2)) + math.log1p(math.exp(6))) / 2
    got = objectives.ranknet(student, teacher, mask)
    torch.testing.assert_close(got, torch.tensor(expected))


def test_bpr_equals_pairs_written_out():
    student, teacher, mask = matrices()
    labels = (torch.rand(student.shape, generator=torch.Generator().manual_seed(1)) > 0.7).long()
    teacher[1, 3] = -INFINITY
    total, count = 0.0, 0
    for s, t, m, y in zip(student.tolist(), teacher.tolist(), mask, labels, strict=True):
        p = [0.0 if x == -INFINITY else 1 / (1 + math.exp(-x / 3)) for x in t]
        kept = [i for i in range(7) if m[i] and y[i] == 0]
        for i in kept:
            for j in kept:
                if p[i] > p[j]:
                    total -= (p[i] - p[j]) * math.log(1 / (1 + math.exp((s[j] - s[i]) / 0.5)))
                    count += 1
    got = objectives.bpr(
        student, teacher, mask, labels=labels, student_temperature=0.5, teacher_temperature=3
    )
    torch.testing.assert_close(got, torch.tensor(total / count))


def pair_divergence(p, q):
    """KL between two coins, 0 · log 0 = 0."""
    return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)


def test_pair_kl_equals_a_loop():
    student, teacher, mask = matrices()
    expected = mean_over_pairs(
        student,
        teacher,
        mask,
        lambda si, sj, ti, tj: pair_divergence(sigmoid((ti - tj) / 2), sigmoid((si - sj) / 0.5)),
    )
    settings = {"student_temperature": 0.5, "teacher_temperature": 2.0}
    got = objectives.pair_kl(student, teacher, mask, **settings)
    torch.testing.assert_close(got, expected)


def test_pair_kl_of_an_unscored_candidate_is_a_certain_preference():
    student, mask = torch.tensor([[1.0, 3.0, 7.0]]), torch.ones(1, 3).bool()
    teacher = torch.tensor([[-5.0, -INFINITY, -INFINITY]])
    expected = -(math.log(sigmoid(1.0 - 3.0)) + math.log(sigmoid(1.0 - 7.0))) / 2
    got = objectives.pair_kl(student, teacher, mask)
    torch.testing.assert_close(got, torch.tensor(expected))


def test_pair_kl_reads_a_pairwise_teachers_answers():
    student, mask = torch.tensor([[1.0, 3.0, 7.0]]), torch.ones(1, 3).bool()
    asked = torch.full((1, 3, 3), float("nan"))
    asked[0, 0, 1], asked[0, 2, 1] = 0.9, 1.0
    expected = (pair_divergence(0.9, sigmoid(1.0 - 3.0)) + pair_divergence(1.0, sigmoid(4.0))) / 2
    got = objectives.pair_kl(student, student * float("nan"), mask, preferences=asked)
    torch.testing.assert_close(got, torch.tensor(expected))


def test_pair_kl_has_the_gradients_of_soft_ranknet():
    student, teacher, mask = matrices()
    student.requires_grad_()
    kl = objectives.pair_kl(student, teacher, mask)
    both = mask[:, :, None] & mask[:, None, :] & ~torch.eye(7).bool()
    logits = (student[:, :, None] - student[:, None, :])[both]
    wanted = torch.sigmoid(teacher[:, :, None] - teacher[:, None, :])[both]
    soft_ranknet = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(kl, student), torch.autograd.grad(soft_ranknet, student)
    )


def test_preference_equals_a_loop():
    student, teacher, mask = matrices()
    terms = []
    for s, t, m in zip(student.tolist(), teacher.tolist(), mask.tolist(), strict=True):
        columns = [j for j, exists in enumerate(m) if exists]
        winner = max(columns, key=lambda j: t[j])
        terms += [-math.log(sigmoid((s[winner] - s[j]) / 2 - 1)) for j in columns if j != winner]
    got = objectives.preference(student, teacher, mask, student_temperature=2.0, margin=1.0)
    torch.testing.assert_close(got, torch.tensor(sum(terms) / len(terms)))


def test_preference_lets_all_of_the_best_win_and_none_lose():
    student = torch.tensor([[0.0, 1.0, 5.0]])
    teacher, mask = torch.tensor([[2.0, 2.0, -INFINITY]]), torch.ones(1, 3).bool()
    expected = (math.log1p(math.exp(5)) + math.log1p(math.exp(4))) / 2
    got = objectives.preference(student, teacher, mask)
    torch.testing.assert_close(got, torch.tensor(expected))
