"""A comparison of teachers for people: tables for a terminal, reliability diagrams as a page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console

from retrieval_kd.evaluation.report.grid import Cell, Grid
from retrieval_kd.evaluation.report.terminal import print_grid
from retrieval_kd.evaluation.teachers.facts import FIRST
from retrieval_kd.files import write_text
from retrieval_kd.metrics.significance import format_p

ALPHA = 0.05
SHOWN = 60  # characters of a text
TITLE = "Reliability of teachers"


def print_comparison(
    record: Mapping[str, Any], console: Console | None = None, *, worst: int = 3
) -> None:
    """The record's tables and so many of the pairs that two teachers disagree on most."""
    out = console or Console()
    grids = [quality_grid(record), agreement_grid(record), answers_grid(record), cost_grid(record)]
    for number, grid in enumerate(filter(None, grids)):
        print_grid(grid, out)
        if number == 0:
            for line in comparison_lines(record):
                out.print(line, markup=False, highlight=False)
        out.print()
    for line in disagreements(record, worst):
        out.print(line, markup=False, highlight=False, emoji=False)
    for one in record["silent"]:
        out.print(f"left out, no answer about these queries: {one['name']}", markup=False)
    for line in record["drops"]:
        out.print(f"left out: {line}", markup=False, highlight=False)


def quality_grid(record: Mapping[str, Any]) -> Grid:
    """What each teacher is worth by the judgments, best first where all can be compared."""
    teachers, shared = record["teachers"], record["shared"]
    common = shared[record["measure"]] if shared else {}
    order = sorted(teachers, key=lambda name: -common.get(name, 0.0))
    best = max(common.values(), default=None)
    rows = []
    for name in order:
        one, fit = teachers[name], teachers[name]["calibration"]
        loss = fit["log_loss"] if fit else {}
        rows.append(
            [
                Cell(name),
                Cell(str(one["queries"])),
                Cell(f"{one['documents_per_query']:.1f}"),
                Cell(number(one[record["measure"]], 4)),
                Cell(number(common.get(name), 4), bold=common.get(name) == best),
                Cell(number(one["with_labels"]["kendall"])),
                Cell(number(one["with_labels"]["rbo"])),
                Cell(number(loss.get("raw"))),
                Cell(number(loss.get("calibrated"))),
            ]
        )
    if FIRST in common:
        rows.append(
            [Cell(FIRST), *[Cell("–")] * 3, Cell(number(common[FIRST], 4)), *[Cell("–")] * 4]
        )
    return Grid(
        ["Teacher", "Queries", "Docs", "nDCG@10", "shared", "τ", "RBO", "Loss", "calibrated"],
        rows,
        _quality_note(record),
        title=f"Against the judgments of {record['queries']} queries",
    )


def _quality_note(record: Mapping[str, Any]) -> str:
    shared = record["shared"]
    parts = ["τ, RBO: with the labels' order. Loss: log-loss of scores as log-odds of relevance."]
    if shared is None:
        return f"Nothing that all of them scored, so they cannot be compared. {parts[0]}"
    of_all = f"{shared['queries']} queries and {shared['documents_per_query']:.1f} documents each"
    parts.append(f"Shared: the {of_all} that all scored.")
    sure = [test for test in shared["tests"] if test["p_holm"] < ALPHA]
    parts += [
        f"{one['a']} − {one['b']}: {one['difference']:+.4f} ({format_p(one['p_holm'])}, Holm)."
        for one in sure
    ]
    if shared["tests"] and not sure:
        parts.append("No difference there is significant.")
    return " ".join(parts)


def agreement_grid(record: Mapping[str, Any]) -> Grid | None:
    """Kendall's τ and RBO of each two teachers, and who is right where they differ."""
    if not record["agreement"]:
        return None
    rows = [
        [
            Cell(f"{one['a']} | {one['b']}"),
            Cell(str(one["queries"])),
            Cell(number(one["kendall"])),
            Cell(number(one["rbo"])),
            Cell(number(other["apart"])),
            Cell(str(other["judged"])),
            Cell(number(other["a_right"])),
        ]
        for one, other in zip(record["agreement"], record["disagreement"], strict=True)
    ]
    return Grid(
        ["A | B", "Queries", "τ", "RBO", "apart", "judged", "A right"],
        rows,
        "apart: share of document pairs that they order differently; judged: such pairs of "
        "different labels; A right: the share of those in which A prefers the better one.",
        title="With each other",
    )


def answers_grid(record: Mapping[str, Any]) -> Grid | None:
    """How answers about pairs and lists parsed, and order bias."""
    rows = []
    for name, one in record["teachers"].items():
        if one["statuses"] is None:
            continue
        bias = one["order_bias"] or {}
        rows.append(
            [
                Cell(name),
                *(Cell(f"{one['statuses'][s]:,}") for s in ("ok", "repaired", "unparsable")),
                Cell(number(bias.get("first_wins"))),
                Cell(number(bias.get("contradictions"))),
                Cell(number(bias.get("log_odds"))),
            ]
        )
    if not rows:
        return None
    return Grid(
        ["Teacher", "ok", "repaired", "unparsable", "first wins", "contradicts", "log-odds"],
        rows,
        "first wins: share of answers for the document shown first (unbiased .5); contradicts: "
        "share of pairs whose winner changes with the order; log-odds: what the first place gets.",
        title="Answers about pairs and lists",
    )


def cost_grid(record: Mapping[str, Any]) -> Grid | None:
    """What 1,000 queries take, as asked."""
    rows = []
    for name, one in record["teachers"].items():
        spent = (one["cost"] or {}).get("per_1000_queries", {})
        columns = ("calls", "prompt_tokens", "answer_tokens", "seconds")
        failed = "–" if one["cost"] is None else f"{one['cost']['spent']['failed']:,}"
        rows.append(
            [
                Cell(name),
                *(Cell(number(spent.get(column), 0)) for column in columns),
                Cell(number(spent.get("price"), 2)),
                Cell(failed),
            ]
        )
    return Grid(
        ["Teacher", "Calls", "Tokens read", "Tokens written", "Seconds", "Price", "Failed calls"],
        rows,
        "With as many documents as each was asked about. –: not known.",
        title="Cost of 1,000 queries",
    )


def comparison_lines(record: Mapping[str, Any]) -> list[str]:
    """Who makes the shared comparison one of few queries, or of few documents."""
    lines = [held_back_line(one) for one in record["held_back"]]
    few = record.get("ranks_few")  # older files have none
    if few:
        lines.append(
            f"{', '.join(few['names'])} ranked few documents: `shared` is of the "
            f"{few['shared']:.1f} of a query that all ranked, the others share "
            f"{few['others']:.1f}. To compare those on theirs, name each with --teacher."
        )
    return lines


def held_back_line(one: Mapping[str, Any]) -> str:
    """Why the shared comparison is of so few queries.

    Example:
        >>> held_back_line({"name": "small", "queries": 3, "shared": 3, "others": 40})
        'small answered about 3 queries: all share 3, the others 40. To compare those on all 40, \
name each with --teacher.'
    """
    return (
        f"{one['name']} answered about {one['queries']} queries: all share {one['shared']}, the "
        f"others {one['others']}. To compare those on all {one['others']}, name each with "
        "--teacher."
    )


def disagreements(record: Mapping[str, Any], most: int) -> list[str]:
    """The strongest clashes of any two teachers in words."""
    found = [(clash, one) for one in record["disagreement"] for clash in one["worst"]]
    found.sort(key=lambda pair: -pair[0]["strength"])
    lines = ["Surest of opposite orders, in standard deviations:"] if found[:most] else []
    for clash, one in found[:most]:
        lines.append(f"  {clash['strength']:.2f}  {_cut(clash['query'])}  [{clash['query_id']}]")
        for who in ("a", "b"):
            document = clash[f"{who}_prefers"]
            label = "not judged" if document["gain"] is None else f"label {document['gain']}"
            told = f"{_cut(document['text'])} [{document['id']}, {label}]"
            lines.append(f"    {one[who]} prefers {told}")
    if len(found) > most:
        lines.append(f"  ({len(found) - most:,} more pairs: --worst N shows N, --json keeps all)")
    return lines


def write_reliability(record: Mapping[str, Any], path: Path) -> None:
    """A page with the reliability diagrams of calibrated and of raw scores, cross-fitted."""
    from retrieval_kd.evaluation.report.figures import reliability_plot

    fits = {n: t["calibration"] for n, t in record["teachers"].items() if t["calibration"]}
    kinds = {
        "After calibration, on queries it was not fitted on": {
            n: f["bins"] for n, f in fits.items()
        },
        "Scores taken as log-odds": {n: f["raw"]["bins"] for n, f in fits.items()},
    }
    style = (files("retrieval_kd.evaluation") / "report" / "style.css").read_text(encoding="utf-8")
    pictures = "".join(
        f"<h2>{head}</h2>\n<figure>{reliability_plot(bins, f'bins{i}', list(fits))}</figure>\n"
        for i, (head, bins) in enumerate(kinds.items())
        if bins
    )
    write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{TITLE}</title>\n'
        f"<style>{style}</style></head>\n<body><main><h1>{TITLE}</h1>\n{pictures}</main></body></html>\n",
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals, or a dash.

    Example:
        >>> number(1234.5, 0), number(None)
        ('1,234', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
