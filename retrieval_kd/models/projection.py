"""Linear maps of an encoder's vectors to fewer dimensions, fitted to the vectors of its documents.

None of them shifts the mean: a map y = W x without a constant keeps the origin, so that products
and cosines of mapped vectors are those of the part of a vector that is kept.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from retrieval_kd.errors import InputError

Start = Literal["pca", "whitening", "half_whitening"]
POWERS = {"pca": 0.0, "whitening": -0.5, "half_whitening": -0.25}  # of the eigenvalues in W
ROWS = 65_536  # of vectors that are read at a time
SMALLEST = 1e-6  # of the largest eigenvalue: what is below it is rounding, and is not blown up


def fit_projection(vectors: np.ndarray, dimensions: int, start: Start) -> np.ndarray:
    r"""Fit W (E, D) to vectors (N, D), which are read once and may stay on disk.

    With the second moment XᵀX / N = U Λ Uᵀ, eigenvalues falling, and U_E its first E axes:

    - "pca": W = U_Eᵀ. No other W of E orthonormal rows keeps more of the vectors' squared lengths,
      and no matrix of rank E is nearer to all their products, X Xᵀ (Eckart and Young 1936).
    - "whitening": W = Λ_E^(-1/2) U_Eᵀ, after which every dimension has the same second moment
      (Su et al. 2021, https://arxiv.org/abs/2103.15316, who subtract the mean first; here the
      first axis, which lies near the mean, is scaled down with the others).
    - "half_whitening": W = Λ_E^(-1/4) U_Eᵀ, half-way between the two. On the queries that
      settings were chosen by it ranked better than either (docs/experiments/compression.md).

    Args:
        vectors: (N, D), as the encoder makes them.
        dimensions: E, from 1 to D.

    Raises:
        InputError: E is below 1 or larger than D, or there is no vector that is not zero.

    Example:
        >>> vectors = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> fit_projection(vectors, 1, "pca").tolist()
        [[1.0, 0.0]]
    """
    width = vectors.shape[1]
    if not 1 <= dimensions <= width:
        raise InputError(
            f"vectors of {width} dimensions are not projected to {dimensions}",
            remedy=f"give 1 to {width} dimensions",
        )
    moment = np.zeros((width, width))
    for at in range(0, len(vectors), ROWS):
        some = np.asarray(vectors[at : at + ROWS], dtype=np.float64)
        moment += some.T @ some / len(vectors)  # (D, D)
    values, axes = np.linalg.eigh(moment)
    values, axes = values[::-1][:dimensions], axes.T[::-1][:dimensions]  # (E,), (E, D)
    if values[0] <= 0:
        raise InputError(
            "every vector is zero, so no axis is the first", remedy="look at the texts"
        )
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(dimensions), largest])[:, None]  # ± is LAPACK's choice
    scales = np.maximum(values, SMALLEST * values[0]) ** POWERS[start]  # (E,)
    return (axes * scales[:, None]).astype(np.float32)
