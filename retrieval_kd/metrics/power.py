"""Power of the paired t-test: queries that a difference needs, smallest difference it detects."""

from __future__ import annotations

import math

import numpy as np

from retrieval_kd.errors import InputError

POWER, ALPHA = 0.8, 0.05


def t_test_power(effect: float, queries: int, alpha: float = ALPHA) -> float:
    """Return the probability that a two-sided paired t-test detects a true difference.

    power = P(|T| > t) with T noncentral t, n − 1 degrees of freedom, noncentrality √n · effect, and
    t the central distribution's 1 − α/2 quantile (Cohen 1988, section 2.3).

    Args:
        effect: mean / standard deviation of the differences per query.

    Example:
        >>> round(t_test_power(0.2, 199), 3)
        0.802
    """
    from scipy.stats import nct, t

    if queries < 2:
        return 0.0
    bound = t.isf(alpha / 2, queries - 1)
    shift = math.sqrt(queries) * abs(effect)
    found, wrong_side = nct.sf(bound, queries - 1, shift), nct.cdf(-bound, queries - 1, shift)
    # far out scipy returns NaN for the wrong side's probability, which is 0, and for a power of 1
    return float(np.nan_to_num(found, nan=1.0) + np.nan_to_num(wrong_side, nan=0.0))


def queries_needed(effect: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """Return the fewest queries on which a true effect of this size is detected with this power.

    None if the effect is 0, which no number of queries detects.

    Example:
        >>> [queries_needed(effect) for effect in (0.2, -0.2, 0.0)]
        [199, 199, None]
    """
    from scipy.stats import norm

    _check(power, alpha)
    if not effect:
        return None
    # The normal approximation is about two queries too low: the search starts there.
    near = ((norm.isf(alpha / 2) + norm.isf(1 - power)) / effect) ** 2
    if near > 1e6:
        return math.ceil(near)
    queries = max(2, math.ceil(near))
    while t_test_power(effect, queries, alpha) < power:
        queries += 1
    return queries


def detectable_difference(
    deviation: float, queries: int, power: float = POWER, alpha: float = ALPHA
) -> float | None:
    """Return the smallest true difference that this number of queries detects with this power.

    None with fewer than two queries, or if all differences are equal: how much they would vary if
    one system were better is then unknown, not 0.

    Args:
        deviation: standard deviation of the differences per query.

    Example:
        >>> round(detectable_difference(0.25, 199), 4)  # 0.2 standard deviations
        0.0499
    """
    from scipy.optimize import brentq

    _check(power, alpha)
    if queries < 2 or deviation == 0:
        return None

    def missing(effect: float) -> float:
        return t_test_power(effect, queries, alpha) - power

    high = 1.0
    while missing(high) < 0:
        high *= 2
    return deviation * float(brentq(missing, 0.0, high, xtol=1e-9))


def _check(power: float, alpha: float) -> None:
    if not 0 < alpha < power < 1:
        raise InputError(
            f"power {power} at level {alpha} is not possible",
            remedy="choose a power between the level and 1, such as 0.8 at 0.05",
        )
