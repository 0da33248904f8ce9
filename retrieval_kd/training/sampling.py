"""Which of a query's candidates make a slate, and which are too likely relevant to be negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from retrieval_kd.errors import Drops
from retrieval_kd.training.slates import Pool, Slate

Sampling = Literal["random", "stratified", "hardest"]


def draw(
    pool: Pool, size: int, depth: int, rng: np.random.Generator, sampling: Sampling = "random"
) -> Slate:
    """Draw a slate: a positive in column 0, then others from the pool's first `depth`.

    The positive is a random judged relevant document, or the teacher's best where nothing is
    judged. The others are drawn without replacement and may include further relevant documents:

    - `random`: evenly;
    - `stratified`: one at random from each of N − 1 equal parts of the candidates in the teacher's
      order, so that every slate spans its scores (Hofstätter et al. 2021, TAS-Balanced, bin the
      margins, https://arxiv.org/abs/2104.06967);
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
    elif wanted:
        rest = np.array([rng.choice(part) for part in np.array_split(rest, wanted)])
    chosen = np.concatenate([[first], rest]).astype(np.int64)
    return Slate(pool.positions[chosen], pool.teacher[chosen], pool.gains[chosen])


def without_false_negatives(pools: Sequence[Pool], margin: float, drops: Drops) -> list[Pool]:
    r"""Pools without unjudged candidates that the teacher finds about as good as a relevant one.

    Left out is what nobody judged relevant and t > max over relevant r of t_r, less `margin`:
    likely relevant documents that the judges have not seen (RocketQA's denoising, Qu et al. 2021,
    https://arxiv.org/abs/2010.08191, by the teacher's confidence there; NV-Retriever's margin,
    https://arxiv.org/abs/2407.15831, here). Queries without a judgment or with an unscored positive
    are kept as they are. What was left out is counted in `drops`, and is no negative either where
    another query's slate brings it into the batch.

    Args:
        margin: on the scale of the teacher's targets; 0 removes only what is better than the best
            judged document, a negative margin less.

    Example:
        >>> drops = Drops()
        >>> pool = Pool("q", np.arange(3), np.array([1.5, 1.0, 0.0]), np.array([0, 1, 0]))
        >>> without_false_negatives([pool], 0.5, drops)[0].positions.tolist()
        [1, 2]
    """
    kept = []
    for pool in pools:
        scored = pool.teacher[(pool.gains > 0) & np.isfinite(pool.teacher)]
        if not len(scored):
            kept.append(pool)
            continue
        likely = (pool.gains <= 0) & (pool.teacher > scored.max() - margin)
        if likely.any():
            drops.add("likely false negative left out", pool.query[:40], int(likely.sum()))
        if (~likely).sum() < 2:
            drops.add("query with nothing but likely relevant candidates", pool.query[:40])
            continue
        members = None if pool.members is None else pool.members[:, ~likely]
        kept.append(
            replace(
                pool,
                positions=pool.positions[~likely],
                teacher=pool.teacher[~likely],
                gains=pool.gains[~likely],
                members=members,
                ignored=np.concatenate([pool.ignored, pool.positions[likely]]),
            )
        )
    return kept
