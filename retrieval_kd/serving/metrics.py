"""Counts of requests and errors and histograms of seconds, in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many durations were within each bound."""

    def __init__(self) -> None:
        self.counts, self.total = [0] * (len(BOUNDS) + 1), 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, label: str) -> Iterator[str]:
        within = 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self.counts, strict=True):
            within += count
            yield f'{name}_bucket{{{label},le="{bound}"}} {within}'
        yield f"{name}_sum{{{label}}} {self.total:.6f}"
        yield f"{name}_count{{{label}}} {within}"


class Metrics:
    """What happened since the start; safe to use from several threads.

    Example:
        >>> metrics = Metrics(); metrics.request("/ready", 503, 0.002)
        >>> [line for line in metrics.text().splitlines() if line.startswith("rkd_errors")]
        ['rkd_errors_total{route="/ready"} 1']
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}
        self._systems: dict[str, Histogram] = {}
        self.at_work = 0
        """Searches at work or waiting."""

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds.setdefault(route, Histogram()).add(seconds)

    def searched(self, system: str, seconds: float) -> None:
        """Count a system's search."""
        with self._lock:
            self._systems.setdefault(system, Histogram()).add(seconds)

    @property
    def answered(self) -> int:
        """The number of requests so far."""
        return self._requests.total()

    def text(self) -> str:
        """Write all metrics."""
        with self._lock:
            return "\n".join([*self._lines(), ""])

    def _lines(self) -> Iterator[str]:
        yield from _heading("rkd_requests_total", "counter", "Requests that were answered.")
        errors: Counter[str] = Counter()
        for (route, status), count in sorted(self._requests.items()):
            yield f'rkd_requests_total{{{_label("route", route)},status="{status}"}} {count}'
            errors[route] += count * (status >= 400)
        yield from _heading("rkd_errors_total", "counter", "Those with a status of 400 or more.")
        for route, count in errors.items():
            yield f"rkd_errors_total{{{_label('route', route)}}} {count}"
        yield from _heading("rkd_searches_at_work", "gauge", "Searches at work or waiting.")
        yield f"rkd_searches_at_work {self.at_work}"
        yield from _heading("rkd_request_seconds", "histogram", "From request to answer.")
        for route, histogram in sorted(self._seconds.items()):
            yield from histogram.lines("rkd_request_seconds", _label("route", route))
        yield from _heading("rkd_search_seconds", "histogram", "One system's encoding and search.")
        for system, histogram in sorted(self._systems.items()):
            yield from histogram.lines("rkd_search_seconds", _label("system", system))


def _heading(name: str, kind: str, meaning: str) -> tuple[str, str]:
    return f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'
