"""An evaluation as a table for people: quality with marks of significance, and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.grid import LETTERS, Cell, Grid
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison

TESTS = {"t": "paired t-test", "randomisation": "paired randomisation test"}
ALPHA = 0.05
Facts = Mapping[str, Any]  # a system's costs by field; unknown ones are absent or None


@dataclass(frozen=True)
class Cost:
    """A column of costs."""

    field: str  # of a system's facts and of `data.SystemRow`
    heading: str
    meaning: str
    write: Callable[[Any], str]

    def cell(self, facts: Facts) -> Cell:
        value = facts.get(self.field)
        return Cell(self.write(value), value=value)


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


def known_costs(systems: Iterable[Facts]) -> list[Cost]:
    """Return the columns for which at least one system has a value.

    Example:
        >>> [cost.heading for cost in known_costs([{"latency_ms_p50": 2.5}, {"parameters": None}])]
        ['p50, ms']
    """
    rows = list(systems)
    return [cost for cost in COSTS if any(facts.get(cost.field) is not None for facts in rows)]


def cost_note(columns: Sequence[Cost], systems: Mapping[str, Facts] | None = None) -> str:
    """Explain the columns, and name the systems whose latency excludes the first stage.

    Example:
        >>> print(cost_note(COSTS[:1]))
        Costs: Parameters: of the model; – means unknown.
        >>> ranker = {"latency_ms_p50": 9.0, "re_ranks": True}
        >>> print(cost_note(known_costs([ranker]), {"BERT": ranker}))
        Costs: p50, ms: median latency of a query; – means unknown. Without the first stage: BERT.
    """
    if not columns:
        return ""
    meanings = "; ".join(f"{cost.heading}: {cost.meaning}" for cost in columns)
    note = f"Costs: {meanings}; {formats.UNKNOWN} means unknown."
    rerankers = [
        formats.one_line(name, 60)
        for name, facts in (systems or {}).items()
        if facts.get("re_ranks") and facts.get("latency_ms_p50") is not None
    ]
    return f"{note} Without the first stage: {', '.join(rerankers)}." if rerankers else note


def letters(systems: Sequence[str]) -> dict[str, str]:
    """Give each system a letter, in order; systems after the 25th get none."""
    return {name: LETTERS[i] if i < len(LETTERS) else "" for i, name in enumerate(systems)}


def better_than(comparisons: Sequence[Comparison], system: str, measure: str) -> list[str]:
    """Return the systems that `system` beats significantly on `measure`."""
    beaten = []
    for c in comparisons:
        if c.measure == measure and c.significant(ALPHA):
            if c.a == system and c.difference > 0:
                beaten.append(c.b)
            if c.b == system and c.difference < 0:
                beaten.append(c.a)
    return beaten


def legend(evaluation: Evaluation, comparisons: Sequence[Comparison]) -> str:
    """Explain the table's marks, and count the queries."""
    count = len(evaluation.queries)
    parts = ["1 query" if count == 1 else f"{count} queries"]
    if evaluation.condensed:
        parts.append("condensed lists")
    if any(evaluation.spread(s, evaluation.measures[0]) is not None for s in evaluation.systems):
        parts.append("± is the standard deviation over seeds")
    if comparisons:
        parts.append(marks_legend(comparisons))
    return "; ".join([*parts, *evaluation.short_lists()]) + "."


def marks_legend(comparisons: Sequence[Comparison]) -> str:
    """Explain the superscript letters."""
    family = sum(c.measure == comparisons[0].measure for c in comparisons)
    correction = f", Holm-corrected over {family} comparisons per measure" * (family > 1)
    test = TESTS[comparisons[0].method]
    return f"ᵃ: better than a, p < {f'{ALPHA:g}'[1:]} ({test}{correction})"


def cell(
    evaluation: Evaluation,
    comparisons: Sequence[Comparison],
    system: str,
    measure: str,
    digits: int = 4,
) -> Cell:
    """Show a system's mean, the letters of those it beats, and its spread; the best is bold."""
    letter = letters(evaluation.systems)
    means = {s: f"{evaluation.mean(s, measure):.{digits}f}" for s in evaluation.systems}
    beaten = better_than(comparisons, system, measure)
    spread = evaluation.spread(system, measure)
    return Cell(
        means[system],
        marks="".join(letter[other] for other in sorted(beaten, key=evaluation.systems.index)),
        after="" if spread is None else f" ±{spread:.{digits}f}",
        bold=len(means) > 1 and means[system] == max(means.values()),
        value=evaluation.mean(system, measure),
    )


@dataclass(frozen=True)
class Clean:
    """Means of one measure on the queries that overlap with no text of the training."""

    measure: str
    queries: int
    means: Mapping[str, float]  # by system

    @classmethod
    def of(cls, audit: Facts | None, settings: Facts) -> Clean | None:
        """Read a run's audit; None if no judgments were trained on, or all queries are clean."""
        effect = (audit or {}).get("effect")
        if effect is None or (settings.get("splits") or {}).get("train", "train") is None:
            return None
        clean, every = effect["queries"].get("clean", 0), effect["queries"]["all"]
        if not 0 < clean < every:
            return None
        means = {system: by_group["clean"] for system, by_group in effect["means"].items()}
        return cls(effect["measure"], clean, means)

    @property
    def note(self) -> str:
        return (
            f"Clean: the {self.queries} queries that share neither text nor relevant document "
            "with the training."
        )


def to_grid(
    evaluation: Evaluation,
    comparisons: Sequence[Comparison] = (),
    facts: Mapping[str, Facts] | None = None,
    digits: int = 4,
    clean: Clean | None = None,
    note: str | None = None,
) -> Grid:
    """Tabulate systems × measures, and the costs that are known.

    Args:
        facts: system → its costs, by the fields of `COSTS`.
        digits: decimals of means and spreads.
        clean: a further column, for systems that were trained on judgments.
        note: what the values are, in place of `legend`.

    Example:
        >>> from retrieval_kd.evaluation.report.grid import to_markdown
        >>> values = {"bm25": {"q1": 0.5, "q2": 0.25}, "dense": {"q1": 1.0, "q2": 0.25}}
        >>> evaluation = Evaluation(["mrr@10"], {s: {"mrr@10": v} for s, v in values.items()})
        >>> print(to_markdown(to_grid(evaluation, facts={"dense": {"latency_ms_p50": 2.5}})))
        |   | System | MRR@10 | p50, ms |
        |---|---|---:|---:|
        | a | bm25 | 0.3750 | – |
        | b | dense | **0.6250** | 2.50 |
        <BLANKLINE>
        2 queries. Costs: p50, ms: median latency of a query; – means unknown.
    """
    costs = {system: (facts or {}).get(system, {}) for system in evaluation.systems}
    columns = known_costs(costs.values())
    rows = [
        [
            Cell(letter),
            Cell(s),
            *(cell(evaluation, comparisons, s, m, digits) for m in evaluation.measures),
            *([Cell(f"{clean.means[s]:.{digits}f}", value=clean.means[s])] if clean else []),
            *(cost.cell(costs[s]) for cost in columns),
        ]
        for s, letter in letters(evaluation.systems).items()
    ]
    measures = [*map(readable, evaluation.measures)]
    measures += [f"{readable(clean.measure)}, clean"] if clean else []
    headers = [" ", "System", *measures, *(column.heading for column in columns)]
    note = legend(evaluation, comparisons) if note is None else note
    notes = [note, clean.note if clean else "", cost_note(columns, costs)]
    return Grid(headers, rows, " ".join(filter(None, notes)), left=2)
