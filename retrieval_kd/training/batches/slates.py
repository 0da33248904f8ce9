"""Pools and slates: a query with its candidates, their teacher scores and their judgments.

A pool holds all candidates of a query, a slate the N that are drawn from it for a training step.
Texts are looked up later, by the collator. `pools.py` builds the pools of a training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from retrieval_kd.training.trainer.settings import Sampling, TrainSettings

NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Pool:
    """All candidates of one query, ordered by the teacher, or by the first stage if there is none.

    Args:
        positions: (C,) rows of the collection's documents.
        teacher: (C,) fused teacher scores; NaN where the score is missing.
        gains: (C,) judgments; 0 for an unjudged document.
        members: (T, C) scores of each single teacher, if an objective needs them.
        ignored: positions of documents that must not count as negatives when another query's slate
            brings them into the batch: the document an unlabelled query was made from, and likely
            false negatives.
        pairs: a pairwise teacher's answers about two candidates, if an objective trains on them.
    """

    query: str
    positions: np.ndarray
    teacher: np.ndarray
    gains: np.ndarray
    members: np.ndarray | None = None
    ignored: np.ndarray = field(default_factory=lambda: NOTHING)
    pairs: PoolPairs | None = None

    def select(self, kept: np.ndarray) -> Pool:
        """Return the pool with only the candidates in the mask `kept (C,)`."""
        return replace(
            self,
            positions=self.positions[kept],
            teacher=self.teacher[kept],
            gains=self.gains[kept],
            members=None if self.members is None else self.members[:, kept],
            pairs=None if self.pairs is None else self.pairs.select(kept),
        )


@dataclass(frozen=True)
class Slate:
    """N candidates of a query as positions in the collection; the first is the positive."""

    positions: np.ndarray  # (N,)
    teacher: np.ndarray  # (N,)
    gains: np.ndarray  # (N,)
    preferences: np.ndarray | None = None  # (N, N), P(i is better than j); NaN: not compared


def draw_slates(
    pools: Sequence[Pool], rows: Sequence[tuple[int, int]], settings: TrainSettings
) -> list[Slate]:
    """Draw one slate per row (pool, draw). The same arguments always return the same slates."""
    size, depth, sampling = settings.slate_size, settings.slate_depth, settings.sampling
    return [
        draw(pools[pool], size, depth, np.random.default_rng([settings.seed, pool, row]), sampling)
        for pool, row in rows
    ]


def draw(
    pool: Pool, size: int, depth: int, rng: np.random.Generator, sampling: Sampling = "random"
) -> Slate:
    """Draw a slate: first a positive, then others from the pool's first `depth`.

    The positive is a random judged relevant document, or the teacher's best if nothing is
    judged. The others are drawn without replacement and may include further relevant documents:

    - `random`: evenly;
    - `stratified`: one at random from each of N − 1 equal parts of the candidates in the teacher's
      order, so that every slate spans its scores (Hofstätter et al. 2021, TAS-Balanced, bin the
      margins, https://arxiv.org/abs/2104.06967);
    - `bands`: the range of the teacher's scores is cut into N − 1 bands of equal width, and each
      draw takes a band that has candidates left, then one of these: as often from few close calls
      as from many easy ones;
    - `hardest`: the teacher's best N − 1.

    A pool smaller than `size` yields a smaller slate; the batch masks the rest.
    """
    relevant = np.flatnonzero(pool.gains > 0)
    first = int(rng.choice(relevant)) if len(relevant) else 0
    rest = np.array([i for i in range(min(depth, len(pool.positions))) if i != first], np.int64)
    wanted = min(size - 1, len(rest))
    if sampling == "random":
        rest = rng.permutation(rest)[:wanted]
    elif sampling == "hardest":
        rest = rest[:wanted]
    elif sampling == "bands":
        rest = _from_bands(rest, pool.teacher[rest], wanted, rng)
    elif wanted:
        rest = np.array([rng.choice(part) for part in np.array_split(rest, wanted)])
    chosen = np.concatenate([[first], rest]).astype(np.int64)
    pairs = None if pool.pairs is None else pool.pairs.among(chosen)
    return Slate(pool.positions[chosen], pool.teacher[chosen], pool.gains[chosen], pairs)


def _from_bands(
    rest: np.ndarray, scores: np.ndarray, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw `wanted` of `rest` from bands of scores; those without a score are a band too."""
    scored = np.isfinite(scores)
    band = np.full(len(rest), -1)
    if scored.any():
        edges = np.linspace(scores[scored].min(), scores[scored].max(), wanted + 1)[1:-1]
        band[scored] = np.digitize(scores[scored], edges)
    left = {number: rng.permutation(rest[band == number]).tolist() for number in np.unique(band)}
    chosen = []
    for _ in range(wanted):
        number = rng.choice(sorted(left))
        chosen.append(left[number].pop())
        if not left[number]:
            del left[number]
    return np.array(chosen, dtype=np.int64)


def digest_pools(pools: Sequence[Pool]) -> str:
    """Return a digest of everything in the pools, 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    for pool in pools:
        state.update(pool.query.encode("utf-8", errors="surrogatepass") + b"\0")
        for array in (pool.positions, pool.teacher, pool.gains, pool.members, pool.ignored):
            state.update(b"" if array is None else array.tobytes())
        for array in () if pool.pairs is None else pool.pairs.arrays():
            state.update(array.tobytes())
    return state.hexdigest()


@dataclass(frozen=True)
class PoolPairs:
    """P(i is better than j) of the compared pairs, by the places of i and j in the pool.

    Usually few of a pool's C² pairs are compared, so that only these are kept: `first (P,)`,
    `second (P,)` and `better (P,)`. Each pair is kept in both directions, as P and 1 − P.
    """

    first: np.ndarray  # (P,)
    second: np.ndarray  # (P,)
    better: np.ndarray  # (P,)

    @classmethod
    def of(
        cls, listed: Sequence[str], documents: Sequence[str] = (), better: np.ndarray | None = None
    ) -> PoolPairs:
        """Take the pairs among a pool's documents `listed (C,)`.

        Args:
            documents: documents (n,) that the teacher compared.
            better: P(i is better than j) (n, n) of them, NaN where they were not compared.

        Example:
            >>> answers = np.array([[np.nan, 0.75], [0.25, np.nan]])
            >>> PoolPairs.of(["b", "c", "a"], ["a", "b"], answers).among(np.arange(3)).tolist()
            [[nan, nan, 0.25], [nan, nan, nan], [0.75, nan, nan]]
        """
        if better is None or not len(documents):
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        place = {document: at for at, document in enumerate(listed)}
        at = np.array([place.get(document, -1) for document in documents])  # (n,)
        both = ~np.isnan(better) & (at[:, None] >= 0) & (at >= 0)  # (n, n)
        i, j = np.nonzero(both)
        return cls(at[i], at[j], better[i, j].astype(np.float32))

    def among(self, chosen: np.ndarray) -> np.ndarray:
        """Return P(i is better than j) (N, N) of the candidates at these places; NaN: unknown."""
        matrix = np.full((len(chosen), len(chosen)), np.nan, dtype=np.float32)
        i, j, kept = self._renumbered(chosen)
        matrix[i, j] = self.better[kept]
        return matrix

    def select(self, kept: np.ndarray) -> PoolPairs:
        """Return the pairs of the candidates in the mask `kept (C,)`, at their new places."""
        i, j, both = self._renumbered(np.flatnonzero(kept))
        return PoolPairs(i, j, self.better[both])

    def _renumbered(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the new places of pairs whose candidates are both `chosen`, and a mask of them."""
        size = max(int(part.max(initial=-1)) for part in (self.first, self.second, chosen)) + 1
        place = np.full(size, -1)
        place[chosen] = np.arange(len(chosen))
        i, j = place[self.first], place[self.second]
        kept = (i >= 0) & (j >= 0)
        return i[kept], j[kept], kept

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all arrays, for a digest."""
        return self.first, self.second, self.better
