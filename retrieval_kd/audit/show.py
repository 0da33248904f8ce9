"""Presentation of an audit: tables for the terminal, and the summary for a report."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrieval_kd.audit.audit import TEXT_KINDS, Audit
from retrieval_kd.audit.effect import Effect
from retrieval_kd.audit.overlap import OVERLAP_KINDS, Overlap
from retrieval_kd.evaluation.report.formats import UNKNOWN, one_line
from retrieval_kd.evaluation.report.grid import Cell, Grid, print_grid
from retrieval_kd.evaluation.report.sections import GROUP_NAMES, overlaps_line
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import format_p
from retrieval_kd.progress import Screen

TEXT = 80  # characters of a text in a table
UNIT = {"query": "queries", "relevant document": "queries", "document": "documents"}


def print_audit(
    audit: Audit, effect: Effect | None = None, rows: int = 10, console: Console | None = None
) -> None:
    """Print what was compared, the counts, the strongest pairs, and the effect on results."""
    out = console or Screen()

    def show(grid: Grid) -> None:
        print_grid(grid, out)
        out.print()

    for line in headline(audit):
        out.print(Text(line))
    show(_counts(audit))
    for what in TEXT_KINDS if rows else ():
        if any(pair.what == what for pair in audit.pairs):
            out.print(_pairs(audit, what, rows))
    for reason in audit.drops.summary():
        out.print(Text(f"not checked: {reason}", style="dim"))
    if effect is not None:
        for measure in effect.measures:
            show(_means(effect, measure))
        gaps = [gap for gap in effect.gaps if gap.measure == effect.measures[0]]
        if any(gap.difference is not None for gap in gaps):
            show(_gaps(effect))
        elif gaps:
            out.print(Text("No query is clean, so there is nothing to hold the others against."))
        for comparison in effect.comparisons.get("clean", []):
            if comparison.measure == effect.measures[0]:
                out.print(Text(f"clean queries, paired: {comparison.sentence()}"))


def headline(audit: Audit) -> list[str]:
    """The finding in one or two sentences."""
    groups = audit.groups()
    names = ", ".join(source["name"] for source in audit.trained)
    total, clean = len(groups["all"]), len(groups["clean"])
    sizes = {name: len(members) for name, members in groups.items()}
    text = (
        f"{audit.evaluated['name']} against {names}: {clean} of {total} queries are clean, "
        f"{sizes['query']} overlap with a training query, {sizes['relevant document']} more "
        "through a relevant document only."
    )
    others = len({pair.eval_id for pair in audit.pairs if pair.what == "document"})
    more = f"{others} other documents of the evaluated collection are copies of training documents."
    return [text, more] if others else [text]


def audit_summary(audit: Audit, effect: Effect | None = None, examples: int = 5) -> dict[str, Any]:
    """The data of a report's section on leakage.

    Keys: `headline` (sentences), `evaluated` and `trained` (what was compared, with counts),
    `queries` (their number in each group: all, clean, query, relevant document), `counts` (by kind
    of text, then kind of overlap), `examples` (the strongest pairs of each kind of text),
    `not_checked` (sentences), `settings`, and `effect` (`Effect.to_json`; None if no results).
    """
    record = audit.to_json()
    shown: list[Overlap] = []
    for what in TEXT_KINDS:
        shown += [pair for pair in audit.pairs if pair.what == what][:examples]
    same = ("evaluated", "trained", "queries", "counts", "not_checked", "settings")
    return {
        "headline": headline(audit),
        **{key: record[key] for key in same},
        "examples": [pair.to_json() for pair in shown],
        "effect": effect.to_json() if effect is not None else None,
    }


def _counts(audit: Audit) -> Grid:
    with_model = audit.settings.get("model")
    rows = [
        [Cell(f"{what} ({UNIT[what]})")]
        + [Cell(UNKNOWN if k == "embedding" and not with_model else str(n)) for k, n in of.items()]
        for what, of in audit.counts().items()
    ]
    return Grid(["", *OVERLAP_KINDS], rows, title="Evaluated texts that overlap, by kind")


def _pairs(audit: Audit, what: str, rows: int) -> Table:
    """The strongest pairs."""
    pairs = [pair for pair in audit.pairs if pair.what == what]
    more = f"and {len(pairs) - rows} more, see --json" if len(pairs) > rows else None
    table = Table(
        title=f"{what}: overlapping pairs",
        title_justify="left",
        caption=more,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("overlap", overflow="fold", max_width=24)
    table.add_column("evaluated", overflow="fold", ratio=1)
    table.add_column("trained", overflow="fold", ratio=1)
    for pair in pairs[:rows]:
        trained = f"{pair.train_id} of {pair.train}: {one_line(pair.train_text, TEXT)}"
        evaluated = f"{pair.eval_id}: {one_line(pair.eval_text, TEXT)}"
        table.add_row(overlaps_line(pair.kinds), Text(evaluated), Text(trained))
    return table


def _means(effect: Effect, measure: str) -> Grid:
    headers = [f"{GROUP_NAMES[name]} ({count})" for name, count in effect.queries.items()]
    rows = [
        [Cell(system), *(Cell(UNKNOWN if m is None else f"{m:.4f}") for m in of[measure].values())]
        for system, of in effect.means.items()
    ]
    return Grid(["System", *headers], rows, title=readable(measure))


def _gaps(effect: Effect) -> Grid:
    """Tests on the first measure; the JSON has the others."""
    rows = []
    for gap in effect.gaps:
        if gap.measure != effect.measures[0] or gap.difference is None:
            continue
        system = f"{gap.system} − {gap.baseline}" if gap.baseline else gap.system
        bounded = gap.low is not None and gap.high is not None
        interval = f"{gap.low:+.4f} to {gap.high:+.4f}" if bounded else "too few queries"
        texts = (system, GROUP_NAMES[gap.group], f"{gap.difference:+.4f}", interval)
        rows.append([*map(Cell, texts), Cell(format_p(gap.p_holm))])
    return Grid(
        ["System", "group", "difference", "95% CI", "p"],
        rows,
        "Welch's t-test, Holm-corrected. System − baseline: the baseline shows how much easier "
        "the overlapping queries are by themselves.",
        left=2,
        title=f"{readable(effect.measures[0])}, overlapping against clean queries",
    )
