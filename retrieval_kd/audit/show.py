"""Presentation of an audit: tables for the terminal, and the summary for a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrieval_kd.audit.audit import TEXT_KINDS, Audit
from retrieval_kd.audit.effect import Effect
from retrieval_kd.audit.overlap import OVERLAP_KINDS, Overlap
from retrieval_kd.evaluation.report.formats import UNKNOWN, one_line
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import format_p
from retrieval_kd.progress import Screen

GROUP_NAMES = {
    "all": "all",
    "clean": "clean",
    "query": "overlapping query",
    "relevant document": "overlapping relevant document only",
}
TEXT = 80  # characters of a text in a table
UNIT = {"query": "queries", "relevant document": "queries", "document": "documents"}


def print_audit(
    audit: Audit, effect: Effect | None = None, rows: int = 10, console: Console | None = None
) -> None:
    """Print what was compared, the counts, the strongest pairs, and the effect on results."""
    out = console or Screen()
    for line in headline(audit):
        out.print(Text(line))
    out.print(_counts(audit))
    for what in TEXT_KINDS if rows else ():
        if any(pair.what == what for pair in audit.pairs):
            out.print(_pairs(audit, what, rows))
    for reason in audit.drops.summary():
        out.print(Text(f"not checked: {reason}", style="dim"))
    if effect is not None:
        for measure in effect.measures:
            out.print(_means(effect, measure))
        gaps = [gap for gap in effect.gaps if gap.measure == effect.measures[0]]
        if any(gap.difference is not None for gap in gaps):
            out.print(_gaps(effect))
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


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )


def _counts(audit: Audit) -> Table:
    table = _table("Evaluated texts that overlap, by kind")
    for name in ("", *OVERLAP_KINDS):
        table.add_column(name, justify="left" if not name else "right")
    compared = {
        kind for kind in OVERLAP_KINDS if kind != "embedding" or audit.settings.get("model")
    }
    for what, by_kind in audit.counts().items():
        cells = [str(by_kind[kind]) if kind in compared else UNKNOWN for kind in OVERLAP_KINDS]
        table.add_row(f"{what} ({UNIT[what]})", *cells)
    return table


def _pairs(audit: Audit, what: str, rows: int) -> Table:
    """The strongest pairs."""
    pairs = [pair for pair in audit.pairs if pair.what == what]
    more = f"and {len(pairs) - rows} more, see --json" if len(pairs) > rows else None
    table = _table(f"{what}: overlapping pairs", more)
    table.add_column("overlap", overflow="fold", max_width=24)
    table.add_column("evaluated", overflow="fold", ratio=1)
    table.add_column("trained", overflow="fold", ratio=1)
    for pair in pairs[:rows]:
        trained = f"{pair.train_id} of {pair.train}: {one_line(pair.train_text, TEXT)}"
        evaluated = f"{pair.eval_id}: {one_line(pair.eval_text, TEXT)}"
        table.add_row(_kinds(pair.kinds), Text(evaluated), Text(trained))
    return table


def _kinds(kinds: Mapping[str, float]) -> str:
    """Kinds of overlap with similarities, except where these are 1 by definition."""
    present = [kind for kind in OVERLAP_KINDS if kind in kinds]
    return ", ".join(k if k in ("id", "exact") else f"{k} {kinds[k]:.2f}" for k in present)


def _means(effect: Effect, measure: str) -> Table:
    table = _table(readable(measure))
    table.add_column("System", overflow="fold")
    for name, count in effect.queries.items():
        table.add_column(f"{GROUP_NAMES[name]} ({count})", justify="right")
    for system, by_measure in effect.means.items():
        cells = [UNKNOWN if m is None else f"{m:.4f}" for m in by_measure[measure].values()]
        table.add_row(Text(system), *cells)
    return table


def _gaps(effect: Effect) -> Table:
    """Tests on the first measure; the JSON has the others."""
    first = effect.measures[0]
    table = _table(
        f"{readable(first)}, overlapping against clean queries",
        "Welch's t-test, Holm-corrected. System − baseline: the baseline shows how much easier "
        "the overlapping queries are by themselves.",
    )
    for name in ("System", "group", "difference", "95% CI", "p"):
        table.add_column(name, overflow="fold")
    for gap in effect.gaps:
        if gap.measure != first or gap.difference is None:
            continue
        system = f"{gap.system} − {gap.baseline}" if gap.baseline else gap.system
        bounded = gap.low is not None and gap.high is not None
        interval = f"{gap.low:+.4f} to {gap.high:+.4f}" if bounded else "too few queries"
        group = GROUP_NAMES[gap.group]
        p = format_p(gap.p_holm)
        table.add_row(Text(system), group, f"{gap.difference:+.4f}", interval, p)
    return table
