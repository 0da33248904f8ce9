"""Token vectors in few bits: the nearest centroid, and the remainder in 1 to 8 bits a dimension.

As in ColBERTv2 (https://arxiv.org/abs/2112.01488), with what makes so few bits enough:

- A byte stands for the 8, 4, 2 or 1 dimensions that share it, as one of 256 patterns that k-means
  finds; levels that are chosen for each dimension alone lose more.
- Remainders are scaled by their deviation in each dimension and by their own length, so all bytes
  share one table of patterns.
- Two more bytes per token say how long the decoded remainder is, and the token. Without them a
  coded token is too short, the more so the farther it is from its centroid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from retrieval_kd.indexing.faiss_import import faiss

MOST_CENTROIDS = 2**16  # their numbers are stored in two bytes
POINTS = 64  # tokens to train a centroid on
PATTERNS = 256  # that a byte can stand for
LENGTHS = 2  # bytes per token


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
    """A trained code: a token ≈ length × (centroid + shift + gain × scale × patterns)."""

    centroids: np.ndarray  # (K, D)
    shift: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    patterns: np.ndarray  # (256, 8 / bits)
    lengths: np.ndarray  # (2, 2): the least and the largest gain, and length

    @classmethod
    def train(cls, tokens: np.ndarray, centroids: int, bits: int, seed: int) -> TokenCodes:
        """Train on a sample of tokens `(n, D)`; the same sample and seed give the same code."""
        centres = _kmeans(tokens, centroids, POINTS, seed)
        centres = centres.astype(np.float16).astype(np.float32)  # as they are stored
        rest = tokens - centres[_nearest(centres, tokens)]
        shift, scale = rest.mean(axis=0), np.maximum(rest.std(axis=0), 1e-6)
        pieces = _even((rest - shift) / scale).reshape(-1, 8 // bits)
        patterns = _kmeans(pieces, PATTERNS, PATTERNS, seed)
        code = cls(centres, shift, scale, patterns, np.zeros((2, 2), np.float32))
        gains, lengths = code._fit(tokens, _nearest(centres, tokens))[1:]
        ranges = [[each.min(), max(each.max(), each.min() + 1e-6)] for each in (gains, lengths)]
        return replace(code, lengths=np.array(ranges, np.float32))

    def encode(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the centroid `(n,)` and the bytes `(n, 2 + D × bits / 8)` of `tokens (n, D)`."""
        cells = _nearest(self.centroids, tokens)
        codes, *lengths = self._fit(tokens, cells)
        written = [self._written(each, which) for which, each in enumerate(lengths)]
        return cells.astype(np.uint16), np.concatenate([np.stack(written, axis=1), codes], axis=1)

    def _fit(
        self, tokens: np.ndarray, cells: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return codes `(n, D × bits / 8)`, gains and lengths `(n,)` that are nearest to tokens."""
        centres = self.centroids[cells] + self.shift
        rest = tokens - centres
        pieces = _even(rest / self.scale).reshape(-1, self.patterns.shape[1])
        codes = _nearest(self.patterns, pieces).reshape(len(tokens), -1).astype(np.uint8)
        steps = self.scale * self.patterns[codes].reshape(tokens.shape)
        gains = (steps * rest).sum(axis=1) / np.maximum((steps * steps).sum(axis=1), 1e-12)
        longest = np.linalg.norm(centres + gains[:, None] * steps, axis=1)
        return codes, gains, np.linalg.norm(tokens, axis=1) / np.maximum(longest, 1e-12)

    def _written(self, lengths: np.ndarray, which: int) -> np.ndarray:
        """Gains (`which` 0) or lengths (1) in a byte each."""
        low, high = self.lengths[which]
        return np.rint(np.clip((lengths - low) / (high - low), 0, 1) * 255).astype(np.uint8)

    def read_lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return gains and lengths `(2, n)` of what `encode` returned."""
        low, high = self.lengths[:, :1], self.lengths[:, 1:]
        return low + (high - low) / 255 * rows[:, :LENGTHS].T.astype(np.float32)

    def unpack(self, rows: np.ndarray) -> np.ndarray:
        """Return the patterns `(n, D)` of what `encode` returned."""
        return np.take(self.patterns, rows[:, LENGTHS:], axis=0).reshape(len(rows), -1)

    def decode(self, cells: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the tokens `(n, D)` that the code stands for."""
        gains, lengths = self.read_lengths(rows)[:, :, None]
        return lengths * (
            self.centroids[cells] + self.shift + gains * self.scale * self.unpack(rows)
        )

    def products(
        self, query: np.ndarray, similar: np.ndarray, cells: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Products `(n, query tokens)` of decoded tokens with a query's, without decoding them.

        Args:
            similar: products of the query's tokens with the centroids `(query tokens, K)`.
        """
        gains, lengths = self.read_lengths(rows)[:, :, None]
        products = self.unpack(rows) @ (query * self.scale).T
        products *= gains
        products += (np.take(similar, cells, axis=1) + (query @ self.shift)[:, None]).T
        products *= lengths
        return products


def _even(rest: np.ndarray) -> np.ndarray:
    """Scale remainders `(n, D)` to a mean square of 1."""
    return rest / np.maximum(np.sqrt((rest**2).mean(axis=1, keepdims=True)), 1e-12)


def _kmeans(points: np.ndarray, count: int, each: int, seed: int) -> np.ndarray:
    """Return `count` centres `(count, d)`, trained on at most `each` points for a centre."""
    if len(points) > count * each:
        rows = np.random.default_rng(seed).choice(len(points), count * each, replace=False)
        points = points[rows]
    if len(points) < count:
        points = np.resize(points, (count, points.shape[1]))  # FAISS wants a point for each
    kmeans = faiss.Kmeans(
        points.shape[1], count, niter=10, seed=seed % 2**31, min_points_per_centroid=1,
        max_points_per_centroid=each,
    )  # fmt: skip
    kmeans.train(np.ascontiguousarray(points, dtype=np.float32))
    return np.asarray(kmeans.centroids)


def _nearest(centres: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Number of the centre nearest to each of `points (n, d)`."""
    flat = faiss.IndexFlatL2(centres.shape[1])
    flat.add(centres)
    numbers: np.ndarray = flat.search(np.ascontiguousarray(points, dtype=np.float32), 1)[1][:, 0]
    return numbers
