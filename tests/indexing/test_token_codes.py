"""Codes of token vectors: how far off a decoded vector can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrieval_kd.indexing.token_codes import TokenCodes, centroids_for

BITS = (8, 4, 2)


def units(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


CODES = {bits: TokenCodes.train(units(2_000), 16, bits, seed=0) for bits in BITS}


@pytest.mark.parametrize("bits", BITS)
@settings(max_examples=50)
@given(tokens=arrays(np.float32, (3, 16), elements=st.floats(-2, 2, width=32)))
def test_every_number_is_coded_as_its_nearest_level(bits: int, tokens: np.ndarray) -> None:
    code = CODES[bits]
    cells, packed = code.encode(tokens)
    rest = (tokens - code.centroids[cells] - code.shift) / code.scale
    nearest = np.abs(rest[:, :, None] - code.levels).min(axis=2)
    assert (np.abs(rest - code.unpack(packed)) <= nearest + 1e-4).all()
    # so within the levels it is at most half a gap off
    error = np.abs(code.decode(cells, packed) - tokens)
    inside = (rest >= code.levels[0]) & (rest <= code.levels[-1])
    bound = np.broadcast_to(np.diff(code.levels).max() / 2 * code.scale + 1e-4, error.shape)
    assert (error[inside] <= bound[inside]).all()


def test_more_bits_are_nearer_and_eight_are_nearly_exact() -> None:
    tokens = units(500, seed=1)  # not those that the codes were trained on
    errors = []
    for bits in BITS:
        cells, packed = CODES[bits].encode(tokens)
        assert packed.shape == (500, 16 * bits // 8) and packed.dtype == np.uint8
        errors.append(float(((CODES[bits].decode(cells, packed) - tokens) ** 2).sum(axis=1).mean()))
    eight, four, two = errors
    assert eight < 1e-3 < four < 0.02 < two < 0.15


@pytest.mark.parametrize("bits", BITS)
def test_decoding_and_coding_again_changes_nothing(bits: int) -> None:
    code = CODES[bits]
    cells, packed = code.encode(units(200, seed=2))
    rest = (code.decode(cells, packed) - code.centroids[cells] - code.shift) / code.scale
    np.testing.assert_allclose(rest, code.unpack(packed), atol=1e-3)


def test_training_twice_gives_the_same_code() -> None:
    again = TokenCodes.train(units(2_000), 16, 2, seed=0)
    for name in ("centroids", "shift", "scale", "levels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(CODES[2], name))


def test_equal_tokens_are_coded_without_a_loss() -> None:
    tokens = np.repeat(units(1), 50, axis=0)
    code = TokenCodes.train(tokens, 4, 2, seed=0)
    np.testing.assert_allclose(code.decode(*code.encode(tokens)), tokens, atol=1e-3)


@pytest.mark.parametrize("tokens", [1, 2, 100, 10**6, 10**12])
def test_there_are_never_more_centroids_than_tokens_or_two_bytes_can_name(tokens: int) -> None:
    assert 1 <= centroids_for(tokens) <= min(tokens, 65_536)
