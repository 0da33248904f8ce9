"""The table of an evaluation for people: in a terminal, as Markdown, as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from retrieval_kd.evaluation.report import costs, grid
from retrieval_kd.evaluation.report.costs import Facts
from retrieval_kd.evaluation.report.grid import LETTERS, Cell, Grid
from retrieval_kd.evaluation.report.terminal import print_grid
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison

TESTS = {"t": "paired t-test", "randomisation": "paired randomisation test"}
ALPHA = 0.05


def letters(systems: Sequence[str]) -> dict[str, str]:
    """A letter for each system, in order; after 25 of them, none."""
    return {name: LETTERS[i] if i < len(LETTERS) else "" for i, name in enumerate(systems)}


def better_than(comparisons: Sequence[Comparison], system: str, measure: str) -> list[str]:
    """The systems that `system` beats significantly on `measure`, as a or as b of a test."""
    beaten = []
    for c in comparisons:
        if c.measure == measure and c.significant(ALPHA):
            if c.a == system and c.difference > 0:
                beaten.append(c.b)
            if c.b == system and c.difference < 0:
                beaten.append(c.a)
    return beaten


def best(evaluation: Evaluation, measure: str) -> set[str]:
    """The systems with the highest mean, as it is printed."""
    means = {system: f"{evaluation.mean(system, measure):.4f}" for system in evaluation.systems}
    return {system for system, mean in means.items() if mean == max(means.values())}


def legend(evaluation: Evaluation, comparisons: Sequence[Comparison]) -> str:
    """What the table's marks mean, and how many queries it stands on."""
    count = len(evaluation.queries)
    parts = ["1 query" if count == 1 else f"{count} queries"]
    if evaluation.condensed:
        parts.append("condensed lists")
    if any(evaluation.spread(s, evaluation.measures[0]) is not None for s in evaluation.systems):
        parts.append("± is the standard deviation over seeds")
    if comparisons:
        parts.append(marks_legend(comparisons))
    return "; ".join(parts) + "."


def marks_legend(comparisons: Sequence[Comparison]) -> str:
    """What a raised letter means."""
    family = sum(c.measure == comparisons[0].measure for c in comparisons)
    correction = f", Holm-corrected over {family} comparisons per measure" * (family > 1)
    test = TESTS[comparisons[0].method]
    return f"ᵃ: better than a, p < {f'{ALPHA:g}'[1:]} ({test}{correction})"


def cell(
    evaluation: Evaluation, comparisons: Sequence[Comparison], system: str, measure: str
) -> Cell:
    """A system's mean, the letters of those it beats, its spread; the best in bold."""
    letter = letters(evaluation.systems)
    beaten = better_than(comparisons, system, measure)
    spread = evaluation.spread(system, measure)
    return Cell(
        f"{evaluation.mean(system, measure):.4f}",
        "".join(letter[other] for other in sorted(beaten, key=evaluation.systems.index)),
        f" ±{spread:.4f}" if spread is not None else "",
        bold=len(evaluation.systems) > 1 and system in best(evaluation, measure),
    )


def to_grid(
    evaluation: Evaluation,
    comparisons: Sequence[Comparison] = (),
    facts: Mapping[str, Facts] | None = None,
) -> Grid:
    """Systems × measures, and what each costs, where that is known.

    Args:
        facts: system → its costs, by the fields of `costs.COSTS`.
    """
    paid = {system: (facts or {}).get(system, {}) for system in evaluation.systems}
    columns = costs.known(paid.values())
    rows = [
        [
            Cell(letter),
            Cell(s),
            *(cell(evaluation, comparisons, s, m) for m in evaluation.measures),
            *(cost.cell(paid[s]) for cost in columns),
        ]
        for s, letter in letters(evaluation.systems).items()
    ]
    headers = [" ", "System", *map(readable, evaluation.measures), *(c.heading for c in columns)]
    told = " ".join(filter(None, [legend(evaluation, comparisons), costs.note(columns, paid)]))
    return Grid(headers, rows, told, left=2)


def print_table(
    evaluation: Evaluation,
    comparisons: Sequence[Comparison] = (),
    facts: Mapping[str, Facts] | None = None,
    console: Console | None = None,
) -> None:
    """In a terminal; the best of each measure in bold."""
    print_grid(to_grid(evaluation, comparisons, facts), console)


def to_markdown(
    evaluation: Evaluation,
    comparisons: Sequence[Comparison] = (),
    facts: Mapping[str, Facts] | None = None,
) -> str:
    """The same table for a README.

    Example:
        >>> values = {"bm25": {"q1": 0.5, "q2": 0.25}, "dense": {"q1": 1.0, "q2": 0.25}}
        >>> evaluation = Evaluation(["mrr@10"], {s: {"mrr@10": v} for s, v in values.items()})
        >>> print(to_markdown(evaluation, facts={"dense": {"latency_ms_p50": 2.5}}))
        |   | System | MRR@10 | p50, ms |
        |---|---|---:|---:|
        | a | bm25 | 0.3750 | – |
        | b | dense | **0.6250** | 2.50 |
        <BLANKLINE>
        2 queries. Costs: p50, ms: median latency of a query; – is not known.
    """
    return grid.to_markdown(to_grid(evaluation, comparisons, facts))


def to_latex(
    evaluation: Evaluation,
    comparisons: Sequence[Comparison] = (),
    facts: Mapping[str, Facts] | None = None,
) -> str:
    """The same table for a paper, with booktabs' rules."""
    return grid.to_latex(to_grid(evaluation, comparisons, facts))
