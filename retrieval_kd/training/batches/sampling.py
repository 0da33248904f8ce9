"""Draws slates: which of a query's candidates a training step sees."""

from __future__ import annotations

from typing import Literal

import numpy as np

from retrieval_kd.training.batches.slates import Pool, Slate

Sampling = Literal["random", "stratified", "bands", "hardest"]


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

    A pool smaller than `size` gives a smaller slate; the batch masks the rest.
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
    known = np.isfinite(scores)
    band = np.full(len(rest), -1)
    if known.any():
        edges = np.linspace(scores[known].min(), scores[known].max(), wanted + 1)[1:-1]
        band[known] = np.digitize(scores[known], edges)
    left = {number: rng.permutation(rest[band == number]).tolist() for number in np.unique(band)}
    chosen = []
    for _ in range(wanted):
        number = rng.choice(sorted(left))
        chosen.append(left[number].pop())
        if not left[number]:
            del left[number]
    return np.array(chosen, dtype=np.int64)
