"""Token vectors in few bits: the nearest centroid, and what remains in 8, 4 or 2 bits a dimension.

As in ColBERTv2 (https://arxiv.org/abs/2112.01488), with two differences. Remainders are scaled by
their mean and deviation in each dimension, so that all dimensions share one short list of levels;
and the levels are means of their buckets (k-means in one dimension), not quantiles, which lowers
the squared error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retrieval_kd.indexing.faiss_import import faiss

MOST_CENTROIDS = 2**16  # their numbers are stored in two bytes
POINTS = 64  # tokens to train a centroid on
LEVEL_SAMPLE = 2**18  # numbers to train the levels on


def centroids_for(tokens: int) -> int:
    """How many centroids suit so many tokens: about 4 × √tokens, a power of two.

    Example:
        >>> centroids_for(90_000), centroids_for(10)
        (1024, 8)
    """
    wanted = max(1.0, min(4 * tokens**0.5, MOST_CENTROIDS, tokens))
    return int(2 ** np.floor(np.log2(wanted)))


@dataclass(frozen=True)
class TokenCodes:
    """A trained code: a token ≈ centroid + shift + scale × level, number by number."""

    centroids: np.ndarray  # (K, D)
    shift: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    levels: np.ndarray  # (2^bits,), rising

    @classmethod
    def train(cls, tokens: np.ndarray, centroids: int, bits: int, seed: int) -> TokenCodes:
        """Train on a sample of tokens `(n, D)`; the same sample and seed give the same code."""
        width = tokens.shape[1]
        kmeans = faiss.Kmeans(
            width, centroids, niter=10, seed=seed % 2**31, min_points_per_centroid=1,
            max_points_per_centroid=POINTS,
        )  # fmt: skip
        kmeans.train(tokens)
        centres = kmeans.centroids.astype(np.float16).astype(np.float32)  # as they are stored
        untrained = cls(centres, np.zeros(width), np.ones(width), np.zeros(1))
        rest = tokens - centres[untrained.nearest(tokens)]
        shift, scale = rest.mean(axis=0), np.maximum(rest.std(axis=0), 1e-6)
        numbers = ((rest - shift) / scale).ravel()
        if len(numbers) > LEVEL_SAMPLE:
            numbers = np.random.default_rng(seed).choice(numbers, LEVEL_SAMPLE, replace=False)
        return cls(centres, shift, scale, _levels(numbers, 2**bits))

    @property
    def bits(self) -> int:
        """Bits a dimension."""
        return len(self.levels).bit_length() - 1

    @cached_property
    def table(self) -> np.ndarray:
        """The levels that each byte stands for, `(256, 8 / bits)`; the first in the lowest bits."""
        shifts = np.arange(0, 8, self.bits)
        return self.levels[(np.arange(256)[:, None] >> shifts) & (2**self.bits - 1)]

    def nearest(self, tokens: np.ndarray) -> np.ndarray:
        """Number of the centroid nearest to each of `tokens (n, D)`."""
        flat = faiss.IndexFlatL2(self.centroids.shape[1])
        flat.add(self.centroids)
        return flat.search(tokens, 1)[1][:, 0]

    def encode(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the centroid `(n,)` and the bytes `(n, D × bits / 8)` of each of `tokens (n, D)`.

        Every number gets the nearest level, so within the levels it is at most half a gap off.
        """
        cells = self.nearest(tokens)
        rest = (tokens - self.centroids[cells] - self.shift) / self.scale
        codes = np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, rest).astype(np.uint8)
        parts = codes.reshape(len(codes), -1, 8 // self.bits)  # (n, bytes, codes in a byte)
        packed = np.bitwise_or.reduce(parts << np.arange(0, 8, self.bits, dtype=np.uint8), axis=2)
        return cells.astype(np.uint16), packed

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """Return the levels `(n, D)` of bytes; `scores` needs no more of a token."""
        return np.take(self.table, packed, axis=0).reshape(len(packed), -1)

    def decode(self, cells: np.ndarray, packed: np.ndarray) -> np.ndarray:
        """Return the tokens `(n, D)` that the code stands for."""
        return self.centroids[cells] + self.shift + self.scale * self.unpack(packed)


def _levels(numbers: np.ndarray, count: int) -> np.ndarray:
    """Centres of a k-means in one dimension, rising, from the quantiles on."""
    numbers = np.sort(numbers.astype(np.float64))
    levels = np.quantile(numbers, (np.arange(count) + 0.5) / count)
    sums = np.concatenate([[0.0], np.cumsum(numbers)])
    for _ in range(20):
        edges = np.searchsorted(numbers, (levels[1:] + levels[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(numbers)]])
        sizes = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(sizes, 1)
        levels = np.sort(np.where(sizes > 0, means, levels))
    return levels.astype(np.float32)
