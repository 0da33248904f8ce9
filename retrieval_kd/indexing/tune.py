"""Finds the cheapest FAISS specification that keeps enough of what exact search finds.

Each candidate is built from all vectors, and its search settings (those that `faiss.ParameterSpace`
knows) are tried with half of the queries. The choice is checked with the other half.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from retrieval_kd.errors import InputError
from retrieval_kd.indexing.dense import (
    OPQ_CENTRES,
    POINTS_PER_CENTRE,
    faiss_threads,
    make_index,
    set_parameters,
    train_index,
)
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.progress import bar

DEPTH = 10  # hits compared with those of exact search
ALONE = 100  # queries timed one by one
FEWEST_QUERIES = 20
SURE = 1.645  # standard errors that a mean must be above the target: 95 %, one-sided
TRIED = {"nprobe": range(1, 1025), "efSearch": range(16, 513), "k_factor_rf": range(1, 33)}
Quality = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(positions found (Q, DEPTH), rows of the queries (Q,)) → a value per query (Q,)."""


@dataclass(frozen=True)
class Target:
    """What an index must keep, and what it may cost.

    Attributes:
        least: of the mean quality.
        bytes: per document, at most.
        milliseconds: per query, alone and with one thread, at most; the median.
    """

    least: float
    bytes: float | None = None
    milliseconds: float | None = None

    @property
    def cheapest(self) -> Literal["milliseconds", "bytes"]:
        """What is made small: time, unless only time is limited."""
        limited = self.milliseconds is not None and self.bytes is None
        return "bytes" if limited else "milliseconds"


@dataclass(frozen=True)
class Point:
    """One specification with one search setting, and what was measured."""

    factory: str
    search: str
    quality: float
    milliseconds: float
    bytes: float
    build_seconds: float
    meets: bool


@dataclass(frozen=True)
class Tuned:
    """The choice, its quality on the queries that did not choose it, and all that was tried."""

    chosen: Point
    checked: float
    points: list[Point]
    skipped: dict[str, str]

    @property
    def spec(self) -> IndexSpec:
        """The specification that was chosen."""
        return IndexSpec(factory=self.chosen.factory, search=self.chosen.search)


def candidates(dimensions: int, documents: int) -> list[str]:
    """Return the factories that are tried by default, some only from 10,000 documents on.

    Example:
        >>> candidates(384, 15_809)[-3:]
        ['IVF256,RaBitQ,Refine(SQ8)', 'IVF256,PQ48', 'OPQ48,IVF256,PQ48x4fs,Refine(SQ8)']
    """
    most = max(1, documents // POINTS_PER_CENTRE)
    cells = 2 ** int(np.log2(max(1.0, min(4 * documents**0.5, most))))
    codes = [d for d in range(1, dimensions + 1) if dimensions % d == 0]
    enough = documents >= POINTS_PER_CENTRE * OPQ_CENTRES
    count = max([1, *(d for d in codes if d <= dimensions / 8)])
    coded = [f"IVF{cells},PQ{count}", f"OPQ{count},IVF{cells},PQ{count}x4fs,Refine(SQ8)"]
    return [
        "Flat", "SQfp16", "SQ8", "HNSW32", "HNSW32_SQ8",
        f"IVF{cells},Flat", f"IVF{cells},SQ8", f"IVF{cells},RaBitQ",
        f"IVF{cells},RaBitQ,Refine(SQ8)", *(coded if enough else []),
    ]  # fmt: skip


def tune(
    vectors: np.ndarray,
    queries: np.ndarray,
    target: Target,
    *,
    quality: Quality | None = None,
    factories: Sequence[str] = (),
    seed: int = 0,
) -> Tuned:
    """Choose a specification for these vectors.

    A setting meets the target if the mean of the choosing half is above it by 1.645 standard
    errors. Of those within the budget the fastest is chosen; the smallest if only time is limited.

    Args:
        vectors: of the documents, as they are indexed: (D, d).
        queries: (Q, d); a random half chooses, the other one checks.
        quality: of what was found; by default recall, the share of the exact ten that are found.
        factories: to try; by default `candidates`.

    Raises:
        InputError: too few queries, or nothing meets target and budget; the nearest is named.
    """
    if len(queries) < 2 * FEWEST_QUERIES:
        raise InputError(
            f"{len(queries)} queries cannot choose an index and check it",
            remedy=f"give at least {2 * FEWEST_QUERIES}",
        )
    order = np.random.default_rng(seed).permutation(len(queries))
    choosing, checking = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    measure = quality or recall_against(build(IndexSpec(), vectors), queries)
    points: list[Point] = []
    skipped: dict[str, str] = {}
    best, kept = None, None
    names = list(factories) or candidates(vectors.shape[1], len(vectors))
    with bar("trying specifications", len(names)) as progress:
        for factory in names:
            try:
                start = time.perf_counter()
                index = build(IndexSpec(factory=factory), vectors)
            except InputError as error:
                skipped[factory] = str(error)
            else:
                seconds = time.perf_counter() - start
                points += tried(factory, index, seconds, queries, choosing, measure, target)
                if (now := choose(points, target)) != best:
                    best, kept = now, index
            progress.advance(1)
    if best is None:
        raise nothing(points, skipped, target)
    set_parameters(kept, best.search, "search")
    checked = measure(hits(kept, queries[checking]), checking)
    return Tuned(best, float(checked.mean()), points, skipped)


def build(spec: IndexSpec, vectors: np.ndarray) -> Any:
    """Train an index and add the vectors, as `rkd index` does."""
    index = make_index(spec, vectors.shape[1], len(vectors))
    train_index(index, spec, vectors, normalised=False)
    index.add(vectors)
    return index


def tried(
    factory: str,
    index: Any,
    seconds: float,
    queries: np.ndarray,
    choosing: np.ndarray,
    measure: Quality,
    target: Target,
) -> Iterator[Point]:
    """Yield a point for each search setting, without those that only cost more than a good one."""
    size = len(faiss.serialize_index(index)) / index.ntotal
    good: list[dict[str, int]] = []
    for setting in settings(index):
        if any(all(setting[name] >= value for name, value in low.items()) for low in good):
            continue
        search = ",".join(f"{name}={value}" for name, value in setting.items())
        set_parameters(index, search, "search")
        values = measure(hits(index, queries[choosing]), choosing)
        meets = bool(lower_bound(values) >= target.least)
        if meets:
            good.append(setting)
        time_alone = milliseconds(index, queries[choosing])
        yield Point(factory, search, float(values.mean()), time_alone, size, seconds, meets)


def settings(index: Any) -> list[dict[str, int]]:
    """Return the search settings of an index that are tried, the cheap ones first."""
    space = faiss.ParameterSpace()
    space.initialize(index)
    ranges: Any = space.parameter_ranges
    values = {}
    for number in range(ranges.size()):
        part = ranges.at(number)  # kept: its values are freed with it
        offered = [int(value) for value in faiss.vector_to_array(part.values)]
        if part.name in TRIED:
            values[part.name] = [value for value in offered if value in TRIED[part.name]]
    grid = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    return sorted(grid, key=lambda setting: float(np.prod(list(setting.values()))))


def hits(index: Any, queries: np.ndarray) -> np.ndarray:
    """Return the positions that an index finds, (Q, DEPTH); -1 where it finds fewer."""
    return index.search(queries, min(DEPTH, index.ntotal))[1]


def milliseconds(index: Any, queries: np.ndarray) -> float:
    """Return the median time of a query, alone and with one thread."""
    times = []
    with faiss_threads(1):
        for query in queries[:ALONE]:
            start = time.perf_counter()
            hits(index, query[None])
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def recall_against(exact: Any, queries: np.ndarray) -> Quality:
    """Return the quality that is the share of exact search's hits that are found."""
    wanted = hits(exact, queries)  # (Q, DEPTH)

    def recall(found: np.ndarray, rows: np.ndarray) -> np.ndarray:
        same = (found[:, :, None] == wanted[rows][:, None, :]).any(1)  # (Q, DEPTH)
        return same.mean(1)

    return recall


def lower_bound(values: np.ndarray) -> float:
    """Return what the mean is above with 95 % confidence."""
    return float(values.mean() - SURE * values.std(ddof=1) / len(values) ** 0.5)


def choose(points: Sequence[Point], target: Target) -> Point | None:
    """Return the cheapest point that meets target and budget, if there is one."""
    fitting = [
        point
        for point in points
        if point.meets
        and (target.bytes is None or point.bytes <= target.bytes)
        and (target.milliseconds is None or point.milliseconds <= target.milliseconds)
    ]
    return min(fitting, key=lambda point: getattr(point, target.cheapest), default=None)


def nothing(points: Sequence[Point], skipped: dict[str, str], target: Target) -> InputError:
    """Return the error that nothing fits, with what came nearest."""
    good = [point for point in points if point.meets]
    if not points:
        return InputError("no specification could be built", remedy="; ".join(skipped.values()))
    if not good:
        best = max(points, key=lambda point: point.quality)
        problem = f"no specification keeps {target.least:g}: the best, {best.factory} "
        problem += f"{best.search}".strip() + f", has {best.quality:.4f}"
        return InputError(problem, remedy="lower the target, give more queries, or other factories")
    small = min(good, key=lambda point: point.bytes)
    fast = min(good, key=lambda point: point.milliseconds)
    return InputError(
        f"nothing that keeps {target.least:g} is within the budget: the smallest, {small.factory}, "
        f"takes {small.bytes:.0f} bytes per document and {small.milliseconds:.3g} ms, the fastest, "
        f"{fast.factory}, {fast.bytes:.0f} bytes and {fast.milliseconds:.3g} ms",
        remedy="raise the budget, or lower the target",
    )
