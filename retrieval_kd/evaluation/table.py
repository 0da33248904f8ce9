"""The table of an evaluation for people: in a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrieval_kd.evaluation.evaluation import Evaluation
from retrieval_kd.evaluation.names import readable
from retrieval_kd.evaluation.significance import Comparison

LETTERS = "abcdefghijklmnoprstuvwxyz"  # Unicode has no superscript q
SUPERSCRIPT = dict(zip(LETTERS, "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ", strict=True))
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
    parts = [f"{len(evaluation.queries)} queries"]
    if any(evaluation.spread(s, evaluation.measures[0]) is not None for s in evaluation.systems):
        parts.append("± is the standard deviation over seeds")
    if comparisons:
        family = sum(c.measure == comparisons[0].measure for c in comparisons)
        correction = f", Holm-corrected over {family} comparisons per measure" * (family > 1)
        test = TESTS[comparisons[0].method]
        parts.append(f"ᵃ: better than a, p < {f'{ALPHA:g}'[1:]} ({test}{correction})")
    return "; ".join(parts) + "."


def _cell(evaluation: Evaluation, comparisons: Sequence[Comparison], s: str, m: str) -> str:
    letter = letters(evaluation.systems)
    marks = "".join(
        SUPERSCRIPT[letter[other]]
        for other in sorted(better_than(comparisons, s, m), key=evaluation.systems.index)
        if letter[other]
    )
    spread = evaluation.spread(s, m)
    return f"{evaluation.mean(s, m):.4f}{marks}" + (f" ±{spread:.4f}" if spread is not None else "")


def to_table(evaluation: Evaluation, comparisons: Sequence[Comparison] = ()) -> Table:
    """A rich table; the best of each measure in bold."""
    table = Table(
        box=box.SIMPLE_HEAD, caption=legend(evaluation, comparisons), caption_justify="left"
    )
    table.add_column("")
    table.add_column("System", overflow="fold")
    for measure in evaluation.measures:
        table.add_column(readable(measure), no_wrap=True)
    for system, letter in letters(evaluation.systems).items():
        cells = [
            Text(
                _cell(evaluation, comparisons, system, measure),
                style="bold" if system in best(evaluation, measure) else "",
            )
            for measure in evaluation.measures
        ]
        table.add_row(letter, Text(system), *cells)  # Text: a name is never markup
    return table


def print_table(
    evaluation: Evaluation,
    comparisons: Sequence[Comparison] = (),
    console: Console | None = None,
) -> None:
    (console or Console()).print(to_table(evaluation, comparisons))


def to_markdown(evaluation: Evaluation, comparisons: Sequence[Comparison] = ()) -> str:
    """The same table for a README.

    Example:
        >>> values = {"bm25": {"q1": 0.5, "q2": 0.25}, "dense": {"q1": 1.0, "q2": 0.25}}
        >>> evaluation = Evaluation(["mrr@10"], {s: {"mrr@10": v} for s, v in values.items()})
        >>> print(to_markdown(evaluation))
        |   | System | MRR@10 |
        |---|---|---:|
        | a | bm25 | 0.3750 |
        | b | dense | **0.6250** |
        <BLANKLINE>
        2 queries.
    """
    header = [" ", "System", *map(readable, evaluation.measures)]
    lines = [f"| {' | '.join(header)} |", "|---|---|" + "---:|" * len(evaluation.measures)]
    for system, letter in letters(evaluation.systems).items():
        cells = []
        for measure in evaluation.measures:
            cell = _cell(evaluation, comparisons, system, measure)
            cells.append(f"**{cell}**" if system in best(evaluation, measure) else cell)
        name = system.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {' | '.join([letter, name, *cells])} |")
    return "\n".join([*lines, "", legend(evaluation, comparisons)])
