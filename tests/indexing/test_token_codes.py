"""Codes of token vectors: how far off a decoded vector can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.indexing.token_codes import TokenCodes, _even, centroids_for

MOST_LOST = {8: 0.001, 4: 0.02, 2: 0.15, 1: 0.4}  # squared error, of the remainder's square


def units(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


CODES = {bits: TokenCodes.train(units(2_000), 16, bits, seed=0) for bits in MOST_LOST}


@pytest.mark.parametrize("bits", MOST_LOST)
@settings(max_examples=20)
@given(seed=st.integers(1, 10**6))
def test_every_byte_stands_for_the_nearest_pattern(bits: int, seed: int) -> None:
    code, tokens = CODES[bits], units(10, seed=seed)
    cells, rows = code.encode(tokens)
    assert rows.shape == (10, 2 + 16 * bits // 8) and rows.dtype == np.uint8
    rest = _even((tokens - code.centroids[cells] - code.shift) / code.scale)
    pieces = rest.reshape(10, -1, 1, 8 // bits)  # (tokens, bytes, 1, dimensions of a byte)
    distances = ((pieces - code.patterns) ** 2).sum(axis=3)
    taken = np.take_along_axis(distances, rows[:, 2:, None].astype(int), axis=2)[:, :, 0]
    np.testing.assert_allclose(taken, distances.min(axis=2), atol=1e-4)


@pytest.mark.parametrize("bits", MOST_LOST)
@settings(max_examples=20)
@given(seed=st.integers(1, 10**6))
def test_a_decoded_token_is_near_and_as_long_as_the_token(bits: int, seed: int) -> None:
    code, tokens = CODES[bits], units(50, seed=seed)
    cells, rows = code.encode(tokens)
    decoded = code.decode(cells, rows)
    # a length beyond those of the sample is cut
    assert np.abs(np.linalg.norm(decoded, axis=1) - 1).mean() < 0.01
    rest = tokens - code.centroids[cells]
    assert ((decoded - tokens) ** 2).sum() <= MOST_LOST[bits] * (rest**2).sum()


def test_products_are_those_of_decoded_tokens() -> None:
    query = units(5, seed=3)
    for code in CODES.values():
        cells, rows = code.encode(units(40, seed=4))
        products = code.products(query, query @ code.centroids.T, cells, rows)
        np.testing.assert_allclose(products, code.decode(cells, rows) @ query.T, atol=1e-5)


def test_training_twice_gives_the_same_code() -> None:
    again = TokenCodes.train(units(2_000), 16, 2, seed=0)
    for name in ("centroids", "shift", "scale", "patterns", "lengths"):
        np.testing.assert_array_equal(getattr(again, name), getattr(CODES[2], name))


def test_equal_tokens_are_coded_without_a_loss() -> None:
    tokens = np.repeat(units(1), 50, axis=0)
    code = TokenCodes.train(tokens, 4, 2, seed=0)
    np.testing.assert_allclose(code.decode(*code.encode(tokens)), tokens, atol=1e-3)


@pytest.mark.parametrize("tokens", [1, 2, 100, 10**6, 10**12])
def test_there_are_never_more_centroids_than_tokens_or_two_bytes_can_name(tokens: int) -> None:
    assert 1 <= centroids_for(tokens) <= min(tokens, 65_536)
