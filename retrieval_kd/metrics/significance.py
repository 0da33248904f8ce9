"""Paired tests between systems: t, randomisation, bootstrap interval, Holm's correction.

Seeds are averaged per query before any test (`Evaluation.group`); queries are the unit.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from retrieval_kd.errors import InputError
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.names import is_unbounded, parse_measures, readable

RESAMPLES = 10_000
CHUNK = 4_000_000  # numbers drawn at a time, to bound memory
Method = Literal["t", "randomisation"]


@dataclass(frozen=True)
class Comparison:
    """System `a` against system `b` on one measure; positive differences favour `a`.

    `p` is that of the chosen method, `p_holm` is `p` corrected over the comparisons on the same
    measure, `low` and `high` bound the difference's 95 % bootstrap interval over queries, `effect`
    is mean / standard deviation of the differences, `spread_a` and `spread_b` are standard
    deviations over seeds. `queries_needed` is the number of queries that detect the observed
    difference with 80 % power, `detectable` the smallest difference that these queries detect with
    it, both for a single t-test at .05; None if all differences are equal.
    """

    measure: str
    a: str
    b: str
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    p_t: float
    p_randomisation: float
    effect: float
    wins: int
    ties: int
    losses: int
    queries: int
    method: str = "t"
    spread_a: float | None = None
    spread_b: float | None = None
    queries_needed: int | None = None
    detectable: float | None = None

    def significant(self, alpha: float = 0.05) -> bool:
        return self.p_holm < alpha

    @property
    def p_text(self) -> str:
        """The p-value, and that it is corrected, as the interval is not."""
        corrected = "Holm-corrected " if self.p_holm != self.p else ""
        return corrected + format_p(self.p_holm)

    def sentence(self) -> str:
        """State the comparison in words, for reports and terminals."""
        interval = f"95% CI {self.low:+.4f} to {self.high:+.4f}"
        means = f"{self.a} {self.mean_a:.4f}, {self.b} {self.mean_b:.4f}"
        outcome = f"{self.wins} wins, {self.ties} ties, {self.losses} losses"
        return (
            f"{readable(self.measure)}: {means}; difference {self.difference:+.4f} "
            f"({interval}, {self.p_text}); {outcome}"
        )

    def power_sentence(self) -> str:
        """State which differences these queries detect, and how many queries this one needs."""
        if self.queries < 2:
            return "One query allows no test."
        if not self.detectable:
            alike = f"Both are equal on all {self.queries:,} queries"
            if self.difference:
                alike = f"All {self.queries:,} queries differ by the same {self.difference:+.4f}"
            return f"{alike}: the smallest difference they would detect is unknown."
        text = f"{self.queries:,} queries detect differences of {self.detectable:.4f} or more"
        if self.seen_from is None:
            text = f"{self.queries:,} queries are too few to detect any difference"
        if self.queries_needed is None:
            return f"{text} with 80 % power."
        return f"{text} with 80 % power; this one needs {self.queries_needed:,}."

    @property
    def seen_from(self) -> float | None:
        """`detectable`, or None if it is larger than any two systems can differ."""
        most = math.inf if is_unbounded(self.measure) else 1.0
        return self.detectable if self.detectable and self.detectable <= most else None


def format_p(p: float) -> str:
    """Write a p-value as papers do.

    Example:
        >>> [format_p(x) for x in (0.00004, 0.0314, 0.2, 0.9996)]
        ['p < .001', 'p = .031', 'p = .200', 'p > .999']
    """
    if p < 0.001:
        return "p < .001"
    return "p > .999" if p > 0.999 else f"p = {p:.3f}".replace("0.", ".")


def compare(
    evaluation: Evaluation,
    baseline: str | None = None,
    measures: str | Iterable[str] | None = None,
    method: Method = "t",
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> list[Comparison]:
    """Test systems against each other.

    All are tested against `baseline` or, if it is None, each against every earlier system. `pairs`
    (a, b) overrides both. p is computed by the t-test and by the randomisation test; `method` picks
    the one to correct (Holm, per measure) and show. The two agree closely from a few dozen queries
    on (Smucker et al., CIKM 2007). The same seed yields the same result.

    Example:
        >>> values = {"base": [0.0, 0.2, 0.4, 0.1, 0.3], "new": [0.5, 0.4, 0.9, 0.1, 0.9]}
        >>> evaluation = Evaluation(["ndcg@10"], {
        ...     name: {"ndcg@10": dict(zip("abcde", v))} for name, v in values.items()})
        >>> [result] = compare(evaluation, baseline="base")
        >>> result.a, round(result.difference, 2), round(result.p, 3), result.wins, result.ties
        ('new', 0.36, 0.033, 4, 1)
    """
    names = evaluation.measures if measures is None else parse_measures(measures)
    if method not in ("t", "randomisation"):
        raise InputError(f"unknown test {method!r}", remedy="choose t or randomisation")
    if pairs is not None:
        pairs = list(pairs)
    elif baseline is not None:
        evaluation.values(baseline, names[0])  # an unknown name is an error
        pairs = [(system, baseline) for system in evaluation.systems if system != baseline]
    else:
        pairs = [(late, early) for early, late in itertools.combinations(evaluation.systems, 2)]
    comparisons = []
    for measure in names:
        family = [_compare(evaluation, measure, a, b, method, seed, resamples) for a, b in pairs]
        corrected = holm([comparison.p for comparison in family])
        comparisons += [replace(c, p_holm=p) for c, p in zip(family, corrected, strict=True)]
    return comparisons


def _compare(
    evaluation: Evaluation, measure: str, a: str, b: str, method: Method, seed: int, resamples: int
) -> Comparison:
    values_a, values_b = evaluation.values(a, measure), evaluation.values(b, measure)
    d = np.round(values_a - values_b, 12)  # 0.3 and 0.1 + 0.2 are a tie  (queries,)
    p_t, p_randomisation = t_test(d), randomisation_test(d, seed, resamples)
    p = p_t if method == "t" else p_randomisation
    low, high = bootstrap_interval(d, seed, resamples)
    deviation = float(np.std(d, ddof=1)) if np.ptp(d) > 0 else 0.0  # np.std would return rounding
    return Comparison(
        measure=measure,
        a=a,
        b=b,
        mean_a=float(values_a.mean()),
        mean_b=float(values_b.mean()),
        difference=float(d.mean()),
        low=low,
        high=high,
        p=p,
        p_holm=p,
        p_t=p_t,
        p_randomisation=p_randomisation,
        effect=float(d.mean()) / deviation if deviation > 0 else 0.0,
        wins=int((d > 0).sum()),
        ties=int((d == 0).sum()),
        losses=int((d < 0).sum()),
        queries=len(d),
        method=method,
        spread_a=evaluation.spread(a, measure),
        spread_b=evaluation.spread(b, measure),
        queries_needed=queries_needed(float(d.mean()) / deviation) if deviation > 0 else None,
        detectable=detectable_difference(deviation, len(d)),
    )


def t_test(d: np.ndarray) -> float:
    """Two-sided p of the paired t-test, t = mean(d) / (std(d) / √n); 1 if all d are 0.

    One query allows no test: p = 1. If all d are equal, t is infinite even for two queries: then p
    is 2 / 2^n, that of the exact randomisation test.

    Example:
        >>> t_test(np.array([0.5, 0.5])), t_test(np.full(9, 0.1))
        (0.5, 0.00390625)
    """
    from scipy.stats import ttest_1samp  # equal to ttest_rel on the differences

    if len(d) < 2 or not d.any():
        return 1.0
    if np.ptp(d) == 0:
        return 2.0 ** (1 - len(d))
    with warnings.catch_warnings():
        # scipy warns when the differences are nearly equal
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttest_1samp(d, 0.0).pvalue)


def randomisation_test(d: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p of the paired randomisation test: how often random signs yield |Σ ±d| ≥ |Σ d|.

    Exact if there are fewer sign patterns than `resamples`; else p = (1 + hits) / (1 + resamples).

    Example:
        >>> randomisation_test(np.array([0.1, 0.2, 0.3]))  # two of the eight sign patterns
        0.25
    """
    d = d[d != 0]  # zeros add nothing under either sign
    if not len(d):
        return 1.0
    observed, slack = abs(d.sum()), 1e-9 * np.abs(d).sum()
    if 2 ** len(d) <= resamples:
        patterns = np.array(list(itertools.product((-1.0, 1.0), repeat=len(d))))  # (2^n, n)
        return float((np.abs(patterns @ d) >= observed - slack).mean())
    hits = 0
    rng = np.random.default_rng(seed)
    for rows in _chunks(resamples, len(d)):
        positive = rng.integers(0, 2, (rows, len(d)), dtype=np.int8).astype(np.float64)
        hits += int((np.abs(2 * (positive @ d) - d.sum()) >= observed - slack).sum())
    return (1 + hits) / (1 + resamples)


def bootstrap_interval(
    d: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile interval of mean(d) over queries drawn with replacement."""
    rng = np.random.default_rng(seed)
    sizes = _chunks(resamples, len(d))
    means = [d[rng.integers(0, len(d), (rows, len(d)))].mean(axis=1) for rows in sizes]
    low, high = np.quantile(np.concatenate(means), [(1 - 0.95) / 2, (1 + 0.95) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest p of m becomes max_{j≤i} (m − j + 1) p_j.

    Never above 1, and in the order of `p_values`.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = running
    return corrected


def _chunks(rows: int, width: int) -> Iterator[int]:
    size = max(1, CHUNK // max(1, width))
    for start in range(0, rows, size):
        yield min(size, rows - start)


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
    right_side, wrong_side = nct.sf(bound, queries - 1, shift), nct.cdf(-bound, queries - 1, shift)
    # far out scipy returns NaN for the wrong side's probability, which is 0, and for a power of 1
    return float(np.nan_to_num(right_side, nan=1.0) + np.nan_to_num(wrong_side, nan=0.0))


def queries_needed(effect: float) -> int | None:
    """Return the fewest queries on which a true effect of this size is detected with 80 % power.

    None if the effect is 0, which no number of queries detects.

    Example:
        >>> [queries_needed(effect) for effect in (0.2, -0.2, 0.0)]
        [199, 199, None]
    """
    from scipy.stats import norm

    if not effect:
        return None
    # The normal approximation is about two queries too low: the search starts there.
    near = ((norm.isf(ALPHA / 2) + norm.isf(1 - POWER)) / effect) ** 2
    if near > 1e6:
        return math.ceil(near)
    queries = max(2, math.ceil(near))
    while t_test_power(effect, queries) < POWER:
        queries += 1
    return queries


def detectable_difference(deviation: float, queries: int) -> float | None:
    """Return the smallest true difference that this number of queries detects with 80 % power.

    None with fewer than two queries, or if all differences are equal: how much they would vary if
    one system were better is then unknown, not 0.

    Args:
        deviation: standard deviation of the differences per query.

    Example:
        >>> round(detectable_difference(0.25, 199), 4)  # 0.2 standard deviations
        0.0499
    """
    from scipy.optimize import brentq

    if queries < 2 or deviation == 0:
        return None

    def missing(effect: float) -> float:
        return t_test_power(effect, queries) - POWER

    high = 1.0
    while missing(high) < 0:
        high *= 2
    return deviation * float(brentq(missing, 0.0, high, xtol=1e-9))
