"""Weights of several rankers, chosen from a grid by what each query's fused list is worth.

A share is one weight per ranker; shares sum to 1. `values (G, Q)` has the value of each of G shares
on each of Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from retrieval_kd.metrics.significance import t_test

PARTS, FEWER_PARTS = 10, 4  # weights are tenths; of many rankers quarters
MOST_IN_TENTHS = 4  # rankers; five have 1,001 ways to share ten parts out
ALPHA = 0.001  # made-up queries are not real ones: only clear evidence counts against equal weights

Share = tuple[float, ...]


def shares(rankers: int) -> list[Share]:
    """Return the weights that are tried: equal ones, and all in tenths that sum to 1.

    Of more than four rankers it is quarters.

    Example:
        >>> shares(2)[:3], len(shares(2)), len(shares(4))
        ([(0.5, 0.5), (0.0, 1.0), (0.1, 0.9)], 12, 287)
    """
    steps = PARTS if rankers <= MOST_IN_TENTHS else FEWER_PARTS
    grid = (tuple(part / steps for part in parts) for parts in _shared_out(steps, rankers))
    return [(1 / rankers,) * rankers, *grid]


def best(tried: Sequence[Share], values: np.ndarray) -> Share:
    """Return the share with the highest mean; of several, the one nearest to equal weights.

    Example:
        >>> best([(0.5, 0.5), (0.0, 1.0), (0.4, 0.6)], np.array([[0.2], [0.3], [0.3]]))
        (0.4, 0.6)
    """
    means = values.mean(1)  # (G,)
    return nearest_to_equal(
        [tried[at] for at in np.flatnonzero(means >= means.max() - 1e-12).tolist()]
    )


def cautious(tried: Sequence[Share], values: np.ndarray) -> Share:
    """Return the share nearest to equal weights that is not significantly worse than the best.

    Worse is by a paired t-test with p < .001.
    """
    highest = values[int(values.mean(1).argmax())]
    return nearest_to_equal(
        [share for share, own in zip(tried, values, strict=True) if t_test(highest - own) >= ALPHA]
    )


def nearest_to_equal(tried: Sequence[Share]) -> Share:
    return min(tried, key=lambda share: float(np.var(share)))


def _shared_out(parts: int, holders: int) -> Iterator[tuple[int, ...]]:
    """All ways to share so many equal parts out among so many holders."""
    if holders == 1:
        yield (parts,)
        return
    for first in range(parts + 1):
        for rest in _shared_out(parts - first, holders - 1):
            yield (first, *rest)
