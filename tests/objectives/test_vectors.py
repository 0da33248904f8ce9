"""Objectives on vectors against Sentence Transformers' losses and loops written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer import losses as peers
from sentence_transformers.sparse_encoder import losses as sparse_peers

from retrieval_kd.objectives import vectors as objectives


class Given(torch.nn.Module):
    """Stands where a peer's loss expects a model; its losses take the embeddings directly."""

    similarity_fn_name = "cosine"
    device = torch.device("cpu")

    def get_embedding_dimension(self) -> int:
        return 4


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def check(objective, *inputs: torch.Tensor) -> None:
    """Gradients of the first input equal finite differences."""
    student = inputs[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: objective(s, *inputs[1:]), student)


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_embedding_objectives_equal_sentence_transformers(metric):
    student, teacher = vectors(5, 4).float(), vectors(5, 4, seed=1).float()
    peer = peers.EmbedDistillLoss(Given(), distance_metric=metric)
    expected = peer.compute_loss_from_embeddings([student], [teacher])
    objective = objectives.embedding_mse if metric == "mse" else objectives.embedding_cosine
    torch.testing.assert_close(objective(student, teacher), expected)


def test_embedding_objectives_are_zero_at_the_teachers_vectors():
    student, teacher = vectors(5, 4), vectors(5, 4, seed=1)
    expected = ((student - teacher) ** 2).mean()
    torch.testing.assert_close(objectives.embedding_mse(student, teacher), expected)
    assert objectives.embedding_mse(teacher, teacher) == 0
    same_direction = objectives.embedding_cosine(3 * teacher, teacher)
    torch.testing.assert_close(same_direction, torch.zeros_like(same_direction))
    check(objectives.embedding_mse, student, teacher)
    check(objectives.embedding_cosine, student, teacher)


def test_a_text_with_few_words_is_not_made_to_have_fewer():
    """As Sentence Transformers' own threshold, the ℓ0 mask."""
    weights = torch.relu(vectors(6, 9))
    words = (weights > 0).sum(1)
    for threshold in range(10):
        peer = sparse_peers.FlopsLoss(Given(), threshold=threshold)
        expected = peer.compute_loss_from_embeddings(weights)
        torch.testing.assert_close(objectives.flops(weights, threshold=threshold), expected)
    student = weights.clone().requires_grad_()
    objectives.flops(student, threshold=int(words.median())).backward()
    moved = student.grad.abs().sum(1) > 0
    assert torch.equal(moved, words > int(words.median())) and moved.any() and not moved.all()
    whole = objectives.flops(weights)
    assert torch.equal(whole, weights.abs().mean(0).square().sum())


shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))


@given(shapes, st.integers(0, 99))
def test_a_wider_teachers_vectors_are_learned_on_its_axes(shape, seed):
    """As scikit-learn's PCA without a mean would give them, and Sentence Transformers' loss."""
    n, width, more, _ = shape
    student, teacher = vectors(n, width, seed=seed), vectors(n, width + more - 1, seed=seed + 1)
    _, _, axes = torch.linalg.svd(vectors(9, width + more - 1, seed=seed + 2), full_matrices=False)
    axes = axes[:width]  # (D, E)
    error = sum(
        (student[i, d] - sum(axes[d, e] * teacher[i, e] for e in range(teacher.shape[1]))) ** 2
        for i in range(n)
        for d in range(width)
    ) / (n * width)
    torch.testing.assert_close(objectives.embedding_pca(student, teacher, axes), error)
    peer = peers.EmbedDistillLoss(Given(), distance_metric="mse")
    reduced = (teacher @ axes.T).float()
    expected = peer.compute_loss_from_embeddings([student.float()], [reduced])
    found = objectives.embedding_pca(student.float(), teacher.float(), axes.float())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    check(objectives.embedding_pca, student, teacher, axes)


@given(shapes)
def test_similarities_equal_those_of_a_loop(shape):
    n, width, other, seed = shape
    student, teacher = vectors(n, width, seed=seed), vectors(n, other, seed=seed + 1)
    cosine = torch.nn.CosineSimilarity(dim=0)
    errors = [
        (cosine(student[i], student[j]) - cosine(teacher[i], teacher[j])) ** 2
        for i in range(n)
        for j in range(n)
    ]
    found = objectives.embedding_similarity(student, teacher)
    torch.testing.assert_close(found, torch.stack(errors).mean())


@given(shapes)
def test_similarities_are_those_of_any_space_turned_stretched_or_padded(shape):
    n, width, other, seed = shape
    student, teacher = vectors(n, width, seed=seed), vectors(n, other, seed=seed + 1)
    loss = objectives.embedding_similarity(student, teacher)
    turn, _ = torch.linalg.qr(vectors(width, width, seed=seed + 2))
    lengths = vectors(n, 1, seed=seed + 3).abs() + 0.1
    padded = torch.nn.functional.pad(student @ turn * lengths, (0, 2))
    torch.testing.assert_close(objectives.embedding_similarity(padded, teacher), loss)
    torch.testing.assert_close(
        objectives.embedding_similarity(padded, student), torch.zeros_like(loss)
    )


@given(shapes, st.sampled_from([0.0, 1e-20, 1e20]))
def test_gradients_of_similarities_are_finite_and_right(shape, length):
    n, width, other, seed = shape
    student, teacher = vectors(n, width, seed=seed), vectors(n, other, seed=seed + 1)
    check(objectives.embedding_similarity, student, teacher)
    extreme = student.float()
    extreme[0] = length
    extreme.requires_grad_()
    objectives.embedding_similarity(extreme, teacher.float()).backward()
    assert extreme.grad is not None and extreme.grad.isfinite().all()


@given(shapes)
def test_spread_is_that_of_sentence_transformers(shape):
    n, width, _, seed = shape
    texts = vectors(n, width, seed=seed).float()
    spread = objectives.spread_out(texts)
    if n == 1:
        assert spread.item() == 0.0
        return
    peer = peers.GlobalOrthogonalRegularizationLoss(Given(), aggregation="sum")
    expected = peer.compute_loss_from_embeddings([texts])
    expected = sum(expected.values()) if isinstance(expected, dict) else expected
    torch.testing.assert_close(spread, expected)
    torch.testing.assert_close(objectives.spread_out(3 * texts), spread)
    student = texts.clone().requires_grad_()
    objectives.spread_out(student).backward()
    assert student.grad is not None and student.grad.isfinite().all()
