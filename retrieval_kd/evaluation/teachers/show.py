"""A comparison of teachers for people: tables for a terminal, reliability diagrams as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from retrieval_kd.evaluation.report.grid import Cell, Grid, print_grid
from retrieval_kd.evaluation.teachers.compare import FIRST
from retrieval_kd.files import write_text
from retrieval_kd.metrics.significance import format_p
from retrieval_kd.progress import Screen

ALPHA = 0.05
SHOWN = 60  # characters of a text
TITLE = "Reliability of teachers"
Record = Mapping[str, Any]


def print_comparison(record: Record, console: Console | None = None, *, worst: int = 3) -> None:
    """Print the record's tables, and the `worst` pairs that two teachers disagree on most."""
    out = console or Screen()

    def print_line(line: str) -> None:
        out.print(line, markup=False, highlight=False, emoji=False)

    print_grid(quality_grid(record), out)
    for line in comparison_lines(record):
        print_line(line)
    out.print()
    for grid in (agreement_grid(record), answers_grid(record), cost_grid(record)):
        if grid is not None:
            print_grid(grid, out)
            out.print()
    for line in disagreements(record, worst):
        print_line(line)
    for teacher in record["silent"]:
        print_line(f"left out, no answer about these queries: {teacher['name']}")
    for line in record["drops"]:
        print_line(f"left out: {line}")


def quality_grid(record: Record) -> Grid:
    """Tabulate each teacher's quality by the judgments; best first if all can be compared."""
    teachers, shared = record["teachers"], record["shared"]
    common = shared[record["measure"]] if shared else {}
    best = max(common.values(), default=None)
    rows = []
    for name in sorted(teachers, key=lambda name: -common.get(name, 0.0)):
        teacher = teachers[name]
        loss = teacher["calibration"]["log_loss"] if teacher["calibration"] else {}
        row = _cells(
            name,
            str(teacher["queries"]),
            f"{teacher['documents_per_query']:.1f}",
            number(teacher[record["measure"]], 4),
            number(common.get(name), 4),
            number(teacher["with_labels"]["kendall"]),
            number(teacher["with_labels"]["rbo"]),
            number(loss.get("raw")),
            number(loss.get("calibrated")),
        )
        row[4] = Cell(row[4].text, bold=common.get(name) == best)
        rows.append(row)
    if FIRST in common:
        rows.append(_cells(FIRST, *"–––", number(common[FIRST], 4), *"––––"))
    return Grid(
        ["Teacher", "Queries", "Docs", "nDCG@10", "shared", "τ", "RBO", "Loss", "calibrated"],
        rows,
        _quality_note(shared),
        title=f"Against the judgments of {record['queries']} queries",
    )


def _cells(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]


def _quality_note(shared: Record | None) -> str:
    columns = "τ, RBO: agreement with the labels' order. Loss: log-loss of scores as log-odds of "
    columns += "relevance."
    if shared is None:
        return f"No document was scored by all, so they cannot be compared. {columns}"
    parts = [
        columns,
        f"Shared: on the {shared['queries']} queries, with {shared['documents_per_query']:.1f} "
        "documents each, that all scored.",
    ]
    significant = [test for test in shared["tests"] if test["p_holm"] < ALPHA]
    parts += [
        f"{test['a']} − {test['b']}: {test['difference']:+.4f} ({format_p(test['p_holm'])}, Holm)."
        for test in significant
    ]
    if shared["tests"] and not significant:
        parts.append("No difference there is significant.")
    return " ".join(parts)


def agreement_grid(record: Record) -> Grid | None:
    """Tabulate Kendall's τ and RBO of each two teachers, and who is right where they differ."""
    rows = [
        _cells(
            f"{pair['a']} | {pair['b']}",
            str(pair["queries"]),
            number(pair["kendall"]),
            number(pair["rbo"]),
            number(clash["apart"]),
            str(clash["judged"]),
            number(clash["a_right"]),
        )
        for pair, clash in zip(record["agreement"], record["disagreement"], strict=True)
    ]
    if not rows:
        return None
    return Grid(
        ["A | B", "Queries", "τ", "RBO", "apart", "judged", "A right"],
        rows,
        "apart: share of document pairs that they order differently; judged: number of those pairs "
        "whose labels differ; A right: share of these in which A prefers the better document.",
        title="With each other",
    )


def answers_grid(record: Record) -> Grid | None:
    """Tabulate how answers about pairs and lists parsed, and order bias."""
    rows = []
    for name, teacher in record["teachers"].items():
        if teacher["statuses"] is not None:
            statuses = [teacher["statuses"][s] for s in ("ok", "repaired", "unparsable")]
            bias = teacher["order_bias"] or {}
            biases = [bias.get(key) for key in ("first_wins", "contradictions", "log_odds")]
            rows.append(_cells(name, *(f"{n:,}" for n in statuses), *map(number, biases)))
    if not rows:
        return None
    return Grid(
        ["Teacher", "ok", "repaired", "unparsable", "first wins", "contradicts", "log-odds"],
        rows,
        "first wins: share of answers for the document shown first (unbiased: .5); contradicts: "
        "share of pairs whose winner changes with the order; log-odds: bonus of the first place.",
        title="Answers about pairs and lists",
    )


def cost_grid(record: Record) -> Grid:
    """Tabulate what 1,000 queries cost."""
    columns = ("calls", "prompt_tokens", "answer_tokens", "seconds")
    rows = []
    for name, teacher in record["teachers"].items():
        cost = teacher["cost"]
        spent = cost["per_1000_queries"] if cost else {}
        numbers = [number(spent.get(column), 0) for column in columns]
        failed = f"{cost['spent']['failed']:,}" if cost else "–"
        rows.append(_cells(name, *numbers, number(spent.get("price"), 2), failed))
    return Grid(
        ["Teacher", "Calls", "Tokens read", "Tokens written", "Seconds", "Price", "Failed calls"],
        rows,
        "For as many documents per query as each teacher scored. – means unknown.",
        title="Cost of 1,000 queries",
    )


def comparison_lines(record: Record) -> list[str]:
    """Name the teachers because of which few queries or few documents are shared."""
    lines = [
        f"{teacher['name']} answered about {teacher['queries']} queries: all share "
        f"{teacher['shared']}, the others {teacher['others']}. To compare the others on all "
        f"{teacher['others']}, name each with --teacher."
        for teacher in record["held_back"]
    ]
    few = record.get("ranks_few")
    if few:
        lines.append(
            f"{', '.join(few['names'])} ranked few documents: `shared` covers the "
            f"{few['shared']:.1f} documents per query that all ranked, the others share "
            f"{few['others']:.1f}. To compare the others on theirs, name each with --teacher."
        )
    return lines


def disagreements(record: Record, most: int) -> list[str]:
    """Describe the strongest clashes of any two teachers."""
    clashes = [(clash, pair) for pair in record["disagreement"] for clash in pair["worst"]]
    clashes.sort(key=lambda item: -item[0]["strength"])
    lines = ["Strongest disagreements, in standard deviations:"] if clashes[:most] else []
    for clash, pair in clashes[:most]:
        lines.append(f"  {clash['strength']:.2f}  {_cut(clash['query'])}  [{clash['query_id']}]")
        for side in ("a", "b"):
            document = clash[f"{side}_prefers"]
            label = "not judged" if document["gain"] is None else f"label {document['gain']}"
            text = f"{_cut(document['text'])} [{document['id']}, {label}]"
            lines.append(f"    {pair[side]} prefers {text}")
    if len(clashes) > most:
        lines.append(f"  ({len(clashes) - most:,} more: --worst N shows N, --json keeps all)")
    return lines


def write_reliability(record: Record, path: Path) -> None:
    """Write a page with reliability diagrams of calibrated and of raw scores, cross-fitted."""
    from retrieval_kd.evaluation.report.page import own_file
    from retrieval_kd.evaluation.report.pictures import reliability_plot

    fits = {n: t["calibration"] for n, t in record["teachers"].items() if t["calibration"]}
    colours = {name: place % 6 for place, name in enumerate(fits)}
    kinds = {
        "After calibration, on queries it was not fitted on": {
            n: f["bins"] for n, f in fits.items()
        },
        "Scores taken as log-odds": {n: f["raw"]["bins"] for n, f in fits.items()},
    }
    pictures = "".join(
        f"<h2>{head}</h2>\n<figure>{reliability_plot(bins, f'bins{i}', colours)}</figure>\n"
        for i, (head, bins) in enumerate(kinds.items())
        if bins
    )
    write_text(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{TITLE}</title>\n'
        f"<style>{own_file('report/style.css')}</style></head>\n"
        f"<body><main><h1>{TITLE}</h1>\n{pictures}</main></body></html>\n",
    )


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with `digits` decimals, or a dash for None.

    Example:
        >>> number(1234.5, 0), number(None)
        ('1,234', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
