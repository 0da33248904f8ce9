"""Projections fitted to vectors, against singular values and against any other projection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.errors import InputError
from retrieval_kd.models import projection
from retrieval_kd.models.projection import fit_projection

shapes = st.tuples(st.integers(1, 20), st.integers(1, 8), st.integers(0, 99)).flatmap(
    lambda shape: st.tuples(st.just(shape), st.integers(1, shape[1]))
)


def drawn(rows: int, width: int, seed: int) -> np.ndarray:
    """Vectors whose mean is far from zero and whose dimensions differ in size."""
    rng = np.random.default_rng(seed)
    return rng.normal(1, 1, (rows, width)) * rng.uniform(0.5, 3, width)


@given(shapes)
def test_pca_keeps_products_as_well_as_the_singular_vectors_do(case):
    (rows, width, seed), dimensions = case
    vectors = drawn(rows, width, seed)
    weight = fit_projection(vectors, dimensions, "pca")
    np.testing.assert_allclose(weight @ weight.T, np.eye(dimensions), atol=1e-5)
    left, values, _ = np.linalg.svd(vectors, full_matrices=False)
    best = (left[:, :dimensions] * values[:dimensions] ** 2) @ left[:, :dimensions].T
    mapped = vectors @ weight.T
    np.testing.assert_allclose(mapped @ mapped.T, best, atol=1e-4 * values[0] ** 2)


@given(shapes)
def test_whitening_leaves_every_dimension_the_same_second_moment(case):
    (rows, width, seed), dimensions = case
    vectors = drawn(rows + 3 * width, width, seed)
    for start, power in (("whitening", 0.0), ("half_whitening", 0.5), ("pca", 1.0)):
        mapped = vectors @ fit_projection(vectors, dimensions, start).T
        values = np.linalg.svd(vectors, compute_uv=False)[:dimensions] ** 2 / len(vectors)
        expected = np.diag(values**power)
        np.testing.assert_allclose(
            mapped.T @ mapped / len(vectors), expected, atol=1e-3 * max(1.0, values[0])
        )


def test_vectors_are_read_in_pieces_and_axes_have_one_sign(monkeypatch):
    vectors = drawn(50, 6, 1)
    whole = fit_projection(vectors, 3, "pca")
    monkeypatch.setattr(projection, "ROWS", 7)
    np.testing.assert_allclose(fit_projection(vectors, 3, "pca"), whole, atol=1e-5)
    np.testing.assert_allclose(fit_projection(-vectors, 3, "pca"), whole, atol=1e-5)


def test_axes_without_any_length_are_not_blown_up():
    flat = np.zeros((5, 4))
    flat[:, 0] = 2.0
    weight = fit_projection(flat, 4, "whitening")
    assert np.isfinite(weight).all() and np.abs(weight).max() < 1e4


def test_dimensions_that_cannot_be_and_empty_vectors_are_refused():
    for dimensions in (4, 0, -1):
        with pytest.raises(InputError, match=f"3 dimensions are not projected to {dimensions}"):
            fit_projection(np.ones((2, 3)), dimensions, "pca")
    with pytest.raises(InputError, match="every vector is zero"):
        fit_projection(np.zeros((2, 3)), 2, "pca")
