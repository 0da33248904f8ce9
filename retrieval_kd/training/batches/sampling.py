"""Which of a query's candidates make a slate, and which are too likely relevant to be negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from retrieval_kd.errors import Drops, InputError
from retrieval_kd.training.batches.slates import Pool, Slate

Sampling = Literal["random", "stratified", "bands", "hardest"]


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
    """`wanted` of `rest`, from bands of their scores; what has no score is a band of its own."""
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


def denoised(pools: Sequence[Pool], below: float, above: float, drops: Drops) -> list[Pool]:
    """Pools of sure candidates only: unjudged ones that the teacher puts between both are left out.

    An unjudged candidate with t > `above` counts as relevant (gain 1), one with t < `below` as not:
    the denoised half of RocketQAv2's hybrid data (Ren et al. 2021, section 3.3,
    https://arxiv.org/abs/2110.07367, with confidences 0.9 and 0.1), beside which the pools as they
    are make the undenoised half. Candidates without a score and queries left without a relevant or
    without another candidate are left out; both are counted in `drops`.

    Args:
        below, above: on the scale of the teacher's targets.

    Raises:
        InputError: no query is left.

    Example:
        >>> pool = Pool("q", np.arange(4), np.array([3.0, 1.0, 0.5, -2.0]), np.array([0, 1, 0, 0]))
        >>> found = denoised([pool], -1.0, 2.0, Drops())[0]
        >>> found.positions.tolist(), found.gains.tolist()
        ([0, 1, 3], [1, 1, 0])
    """
    kept = []
    for pool in pools:
        relevant = (pool.gains > 0) | (pool.teacher > above)
        sure = relevant | (pool.teacher < below)
        if (~sure).any():
            drops.add(
                "unsure candidate left out of denoised slates", pool.query[:40], (~sure).sum()
            )
        if not relevant.any() or not (sure & ~relevant).any():
            drops.add("query without a sure negative or positive", pool.query[:40])
            continue
        kept.append(
            replace(
                pool.select(sure),
                gains=np.maximum(pool.gains, relevant)[sure],
                ignored=np.concatenate([pool.ignored, pool.positions[~sure]]),
            )
        )
    if not kept:
        raise InputError(
            "the teacher is sure of no query: none has a candidate that is surely relevant and one "
            "that is surely not",
            remedy="raise `below`, lower `above`, or leave `denoised` out",
        )
    return kept


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

    Raises:
        InputError: no query is left.

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
        ignored = np.concatenate([pool.ignored, pool.positions[likely]])
        kept.append(replace(pool.select(~likely), ignored=ignored))
    if not kept:
        raise InputError(
            "no query is left: all have nothing but likely relevant candidates",
            remedy="lower `false_negatives`, or leave it out",
        )
    return kept
