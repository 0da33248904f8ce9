"""The costs that stand beside quality: which there are, how they are called and written.

One list for the tables of a run, its report, and a suite. They are measured in `efficiency.py` and
by the stages of a run; here is only how they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.grid import Cell

Facts = Mapping[str, Any]  # a system's costs by field; what is not known is absent or None


@dataclass(frozen=True)
class Cost:
    """A column of costs."""

    field: str  # of a system's facts, and of `report_data.SystemRow`
    heading: str
    meaning: str
    write: Callable[[Any], str]

    def cell(self, facts: Facts) -> Cell:
        return Cell(self.write(facts.get(self.field)))


COSTS = (
    Cost("parameters", "Parameters", "of the model", formats.scaled),
    Cost("bytes_per_document", "Bytes/doc", "of the index", formats.number),
    Cost("documents_per_second", "Docs/s", "encoded for the index", formats.number),
    Cost("latency_ms_p50", "p50, ms", "median latency of a query", formats.number),
    Cost("latency_ms_p95", "p95, ms", "95 % of queries take less", formats.number),
    Cost("training_seconds", "Training", "of one seed", formats.duration),
    Cost(
        "teacher_calls",
        "Teacher calls",
        "pairs, prompts and texts of one seed, at most",
        formats.count,
    ),
)


def known(systems: Iterable[Facts]) -> list[Cost]:
    """The columns of which at least one system knows a value.

    Example:
        >>> [cost.heading for cost in known([{"latency_ms_p50": 2.5}, {"parameters": None}])]
        ['p50, ms']
    """
    rows = list(systems)
    return [cost for cost in COSTS if any(facts.get(cost.field) is not None for facts in rows)]


def note(columns: Sequence[Cost], systems: Mapping[str, Facts] | None = None) -> str:
    """What the columns mean, and of which systems a latency is not all that a query takes.

    Example:
        >>> print(note(COSTS[:1]))
        Costs: Parameters: of the model; – is not known.
        >>> ranker = {"latency_ms_p50": 9.0, "re_ranks": True}
        >>> print(note(known([ranker]), {"teacher": ranker}))
        Costs: p50, ms: median latency of a query; – is not known. Without the first stage: teacher.
    """
    if not columns:
        return ""
    meanings = "; ".join(f"{cost.heading}: {cost.meaning}" for cost in columns)
    told = f"Costs: {meanings}; {formats.UNKNOWN} is not known."
    timed = [
        formats.one_line(name, 60)
        for name, facts in (systems or {}).items()
        if facts.get("re_ranks") and facts.get("latency_ms_p50") is not None
    ]
    return f"{told} Without the first stage: {', '.join(timed)}." if timed else told
