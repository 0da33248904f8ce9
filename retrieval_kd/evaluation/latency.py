"""Latency of several systems, measured side by side.

Every query goes through all systems in turn, so that other load on the machine slows them equally.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def latencies(
    systems: Mapping[str, Callable[[str], object]], queries: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measure median and 95th percentile of milliseconds per query, and queries per second.

    Queries are answered one at a time; the first is answered once before anything is timed.

    Example:
        >>> timed = latencies({"fast": len, "slow": lambda query: time.sleep(0.002)}, ["a", "b"])
        >>> timed["slow"]["latency_ms_p50"] > timed["fast"]["latency_ms_p50"]
        True
    """
    milliseconds: dict[str, list[float]] = {name: [] for name in systems}
    for turn, query in enumerate([*queries[:1], *queries]):
        for name, answer in systems.items():
            start = time.perf_counter()
            answer(query)
            if turn:
                milliseconds[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {
            "latency_ms_p50": round(float(np.median(times)), 3),
            "latency_ms_p95": round(float(np.quantile(times, 0.95)), 3),
            "queries_per_second": round(1000 / float(np.mean(times)), 1),
        }
        for name, times in milliseconds.items()
    }
