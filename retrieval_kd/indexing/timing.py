"""What searching an index costs, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_kd.errors import InputError
from retrieval_kd.indexing.manifest import IDS

if TYPE_CHECKING:
    from retrieval_kd.indexing.index import Index


@dataclass(frozen=True)
class Timing:
    """What a search costs. Latencies are of one query at a time, in milliseconds."""

    queries: int
    encode_ms_p50: float
    encode_ms_p95: float
    search_ms_p50: float
    search_ms_p95: float
    queries_per_second: float
    """All queries in one call, encoding included."""
    index_bytes: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def time_queries(index: Index, queries: Sequence[str], depth: int = 10) -> Timing:
    """Time these queries one at a time, then all at once, after one that does not count."""
    if not queries:
        raise InputError("no queries to time")
    index.search(queries[:1], depth)
    encoding, searching = [], []
    for text in queries:
        start = time.perf_counter()
        vector = index.encode([text])
        middle = time.perf_counter()
        index.search_vectors(vector, depth)
        encoding.append(middle - start)
        searching.append(time.perf_counter() - middle)
    start = time.perf_counter()
    index.search(queries, depth)
    seconds = time.perf_counter() - start
    return Timing(
        queries=len(queries),
        encode_ms_p50=_milliseconds(encoding, 0.5),
        encode_ms_p95=_milliseconds(encoding, 0.95),
        search_ms_p50=_milliseconds(searching, 0.5),
        search_ms_p95=_milliseconds(searching, 0.95),
        queries_per_second=round(len(queries) / seconds, 1),
        index_bytes=sum(
            int(file["bytes"]) for name, file in index.manifest["files"].items() if name != IDS
        ),
    )


def _milliseconds(times: Sequence[float], quantile: float) -> float:
    return round(1000 * float(np.quantile(times, quantile)), 3)
