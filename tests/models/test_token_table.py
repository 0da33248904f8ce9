"""Texts as bags of tokens, and their weighted sums of token vectors."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.models.modules.token_table import TokenBags, TokenTable


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=6))
def test_bags_are_the_counts_of_each_text(ids):
    bags = TokenBags.of(ids, vocabulary=10)
    assert len(bags) == len(ids)
    assert bags.lengths.tolist() == [len(row) for row in ids]
    for row, wanted in enumerate(ids):
        one = bags.take(np.array([row]))
        assert dict(zip(one.tokens.tolist(), one.counts.tolist(), strict=True)) == {
            token: wanted.count(token) for token in set(wanted)
        }


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=6),
    st.data(),
)
def test_some_texts_of_joined_bags_are_those_texts(ids, data):
    bags = TokenBags.joined([TokenBags.of([row], vocabulary=10) for row in ids])
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=5))
    taken, wanted = bags.take(np.array(rows, int)), TokenBags.of([ids[r] for r in rows], 10)
    assert taken.tokens.tolist() == wanted.tokens.tolist()
    assert taken.starts.tolist() == wanted.starts.tolist()


def test_a_text_is_the_weighted_sum_of_its_tokens():
    table = TokenTable(torch.eye(3), torch.tensor([1.0, 2.0, 0.5]))
    bags = TokenBags.of([[0, 1, 1], [], [2]], vocabulary=3)
    expected = torch.tensor([[1.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    torch.testing.assert_close(table(bags.features()).detach(), expected)


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=6))
def test_sums_and_gradients_are_those_of_a_dense_product(ids):
    generator = torch.Generator().manual_seed(0)
    table = TokenTable(torch.randn(10, 4, generator=generator), torch.rand(10) + 0.1)
    bags = TokenBags.of(ids, vocabulary=10)
    wanted = TokenTable(table.vectors.detach(), table.log_weights.detach().exp())
    counts = torch.tensor([[row.count(token) for token in range(10)] for row in ids]).float()
    dense = counts @ (wanted.log_weights.exp()[:, None] * wanted.vectors)  # (n, D)
    gradient = torch.randn(dense.shape, generator=generator)
    dense.backward(gradient)
    for prepared in (False, True):  # with a dense gradient that is there, by a sparse product
        for parameter in table.parameters():
            parameter.grad = torch.zeros_like(parameter) if prepared else None
        vectors = table(bags.features())
        vectors.backward(gradient)
        torch.testing.assert_close(vectors, dense)
        torch.testing.assert_close(table.vectors.grad, wanted.vectors.grad)
        torch.testing.assert_close(table.log_weights.grad, wanted.log_weights.grad)
    with torch.no_grad():
        torch.testing.assert_close(table(bags.features()), vectors)


def test_saturated_counts_are_bm25s():
    bags = TokenBags.of([[0, 0, 1], [1]], vocabulary=2).saturated(1.2, 0.75, mean_length=2.0)
    norm = 1.2 * (0.25 + 0.75 * np.array([3 / 2, 1 / 2]))
    expected = [2 * 2.2 / (2 + norm[0]), 2.2 / (1 + norm[0]), 2.2 / (1 + norm[1])]
    np.testing.assert_allclose(bags.counts, expected, rtol=1e-6)
