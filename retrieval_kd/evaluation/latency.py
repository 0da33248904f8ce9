"""Latency of several systems side by side: every query goes through all of them in turn.

What else the machine does then slows all alike, and differences remain comparisons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def latencies(
    systems: Mapping[str, Callable[[str], object]], queries: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Milliseconds per query, one at a time: median, 95th percentile; and queries per second.

    The first query is asked once before anything is timed.

    Example:
        >>> timed = latencies({"fast": len, "slow": lambda query: time.sleep(0.002)}, ["a", "b"])
        >>> timed["slow"]["latency_ms_p50"] > timed["fast"]["latency_ms_p50"]
        True
    """
    taken: dict[str, list[float]] = {name: [] for name in systems}
    for turn, query in enumerate([*queries[:1], *queries]):
        for name, answer in systems.items():
            start = time.perf_counter()
            answer(query)
            if turn:
                taken[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {
            "latency_ms_p50": round(float(np.median(times)), 3),
            "latency_ms_p95": round(float(np.quantile(times, 0.95)), 3),
            "queries_per_second": round(1000 / float(np.mean(times)), 1),
        }
        for name, times in taken.items()
    }
