"""Self-distillation on vectors small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from retrieval_kd.objectives import pairwise as self_distillation


def full(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def test_adaptive_margin_equals_the_formula_on_vectors():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    documents = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    terms = []
    for query, slate in zip(queries, documents, strict=True):
        for negative in slate[1:]:
            wanted = slate[0] @ slate[0] - slate[0] @ negative
            terms.append((query @ slate[0] - query @ negative - wanted) ** 2)
    scores = torch.einsum("bd,bnd->bn", queries, documents)
    to_positive = torch.einsum("bd,bnd->bn", documents[:, 0], documents)
    got = self_distillation.adaptive_margin(scores, to_positive, full(3, 5))
    torch.testing.assert_close(got, torch.stack(terms).mean())


def test_a_query_at_its_positive_document_has_nothing_to_learn():
    documents = torch.randn(2, 4, 3)
    to_positive = torch.einsum("bd,bnd->bn", documents[:, 0], documents)
    got = self_distillation.adaptive_margin(to_positive, to_positive, full(2, 4))
    assert got == 0


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_masked_candidates_change_nothing(poison):
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    results = []
    for value in (0.0, poison):
        scores = torch.arange(9.0).reshape(3, 3).masked_fill(~mask, value).requires_grad_()
        teacher = torch.ones(3, 3).masked_fill(~mask, value)
        loss = self_distillation.adaptive_margin(scores, teacher, mask)
        results.append((loss.detach(), torch.autograd.grad(loss, scores)[0]))
    assert results[0][0] == 1  # margin −1, wanted 0
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_gradients_equal_finite_differences():
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: self_distillation.adaptive_margin(s, teacher, full(3, 4)), student
    )


def test_the_integrated_score_is_the_weighted_sum_without_gradient():
    parts = {name: torch.randn(2, 3, requires_grad=True) for name in ("dense", "lexical", "multi")}
    got = self_distillation.integrated(parts, {"dense": 1.0, "lexical": 0.3, "multi": 1.0})
    torch.testing.assert_close(
        got, (parts["dense"] + 0.3 * parts["lexical"] + parts["multi"]).detach()
    )
    assert not got.requires_grad


def test_a_part_without_a_weight_does_not_take_part():
    parts = {"dense": torch.ones(1, 2), "lexical": torch.full((1, 2), float("nan"))}
    assert self_distillation.integrated(parts, {"dense": 2.0}).tolist() == [[2.0, 2.0]]
