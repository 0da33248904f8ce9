"""What a pairwise teacher said of a query's candidates, pair by pair, as training looks it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PoolPairs:
    """P(i is better than j) of the pairs that were asked, by the places of i and j in the pool.

    Few of a pool's C² pairs are asked as a rule, so only these P are kept: `first (P,)`,
    `second (P,)` and `better (P,)`. A pair is there once in each direction, as P and 1 − P.
    """

    first: np.ndarray  # (P,)
    second: np.ndarray  # (P,)
    better: np.ndarray  # (P,)

    @classmethod
    def of(
        cls, listed: Sequence[str], named: Sequence[str] = (), better: np.ndarray | None = None
    ) -> PoolPairs:
        """The pairs among a pool's documents `listed (C,)`.

        Args:
            named: documents (n,) that the teacher was asked about.
            better: P(i is better than j) (n, n) of them, NaN where it was not asked.

        Example:
            >>> answers = np.array([[np.nan, 0.75], [0.25, np.nan]])
            >>> PoolPairs.of(["b", "c", "a"], ["a", "b"], answers).among(np.arange(3)).tolist()
            [[nan, nan, 0.25], [nan, nan, nan], [0.75, nan, nan]]
        """
        if better is None or not len(named):
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        place = {document: at for at, document in enumerate(listed)}
        at = np.array([place.get(document, -1) for document in named])  # (n,)
        known = ~np.isnan(better) & (at[:, None] >= 0) & (at >= 0)  # (n, n)
        i, j = np.nonzero(known)
        return cls(at[i], at[j], better[i, j].astype(np.float32))

    def among(self, chosen: np.ndarray) -> np.ndarray:
        """P(i is better than j) (N, N) of the candidates at these places; NaN: not asked."""
        found = np.full((len(chosen), len(chosen)), np.nan, dtype=np.float32)
        i, j, kept = self._renumbered(chosen)
        found[i, j] = self.better[kept]
        return found

    def select(self, kept: np.ndarray) -> PoolPairs:
        """The pairs of the candidates that are kept, a mask (C,), in their new places."""
        i, j, both = self._renumbered(np.flatnonzero(kept))
        return PoolPairs(i, j, self.better[both])

    def _renumbered(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """New places of the pairs whose two candidates are `chosen`, and which pairs these are."""
        size = max(int(part.max(initial=-1)) for part in (self.first, self.second, chosen)) + 1
        place = np.full(size, -1)
        place[chosen] = np.arange(len(chosen))
        i, j = place[self.first], place[self.second]
        kept = (i >= 0) & (j >= 0)
        return i[kept], j[kept], kept

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All there is, for a digest."""
        return self.first, self.second, self.better
