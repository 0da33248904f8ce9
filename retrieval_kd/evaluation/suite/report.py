"""The result of a suite, shown: tables for a terminal, a JSON record, and an HTML page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.grid import Cell, Grid, print_grid
from retrieval_kd.evaluation.report.page import LABEL_LIMIT, render_template
from retrieval_kd.evaluation.report.table import (
    cell,
    known_costs,
    letters,
    marks_legend,
    to_grid,
)
from retrieval_kd.evaluation.report.trade_offs import trade_offs
from retrieval_kd.evaluation.result_file import seal
from retrieval_kd.evaluation.suite.run import Evaluated, SuiteResult
from retrieval_kd.evaluation.suite.spec import average_units
from retrieval_kd.hardware import describe, versions
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison, compare
from retrieval_kd.progress import Screen


def print_suite(result: SuiteResult, console: Console | None = None) -> None:
    """Print quality and cost of the systems, the collections, and what was left out and why."""
    console = console or Screen()
    shown = result_grids(result)[: 2 if len(result.collections) > 1 else 1]
    for number, grid in enumerate(shown):
        if number:
            console.print()
        print_grid(grid, console)
    for name, message in result.missing.items():
        console.print(f"Left out: {name}: {message}", markup=False, highlight=False, emoji=False)


def averages(result: SuiteResult) -> Evaluation | None:
    """Return an Evaluation with one value per collection or group in place of per query.

    None if no collection in the average was evaluated.
    """
    units = average_units(result.members, result.collections)
    if not units:
        return None
    evaluations = {name: part.evaluation for name, part in result.collections.items()}
    per_query = {
        system: {
            measure: {
                unit: float(np.mean([evaluations[n].mean(system, measure) for n in names]))
                for unit, names in units.items()
            }
            for measure in result.options.measures
        }
        for system in result.systems
    }
    return Evaluation(result.options.measures, per_query)


def across(result: SuiteResult) -> list[Comparison]:
    """Test the systems with collections as the unit, by randomisation, exact where they are few.

    The question is whether a system would be better on other collections like these; the tests
    within a collection are about other queries. With fewer than six collections no two-sided p
    falls below .05.
    """
    evaluation = averages(result)
    if evaluation is None or len(evaluation.queries) < 2:
        return []
    return compare(evaluation, result.options.baseline, method="randomisation")


def costs(result: SuiteResult, system: str) -> dict[str, Any]:
    """Sum up a system's costs over all collections, in the fields that one collection's have."""
    parts = [(part.documents, part.costs[system]) for part in result.collections.values()]
    total: dict[str, Any] = {}
    for key in ("kind", "layers", "parameters", "dimensions", "document_tokens"):
        values = [facts[key] for _, facts in parts if facts.get(key) is not None]
        if values:
            total[key] = values[0]
    sizes = [(n, facts["index_bytes"]) for n, facts in parts if "index_bytes" in facts]
    if sizes:
        total["index_bytes"] = sum(size for _, size in sizes)
        documents = sum(n for n, _ in sizes)
        total["bytes_per_document"] = round(total["index_bytes"] / max(1, documents), 1)
        total["index"] = "cached"
    for key in ("documents_per_second", "latency_ms_p50", "latency_ms_p95", "queries_per_second"):
        values = [facts[key] for _, facts in parts if facts.get(key) is not None]
        if values:
            total[key] = round(median(values), 3)
    if total.get("documents_per_second"):
        total["index"] = "made now"
    return total


def result_grids(result: SuiteResult) -> list[Grid]:
    """Tabulate the systems, then the collections: for each measure, or once for a single system."""
    measures = result.options.measures
    by_measure = [[m] for m in measures] if len(result.systems) > 1 else [measures]
    return [systems_grid(result), *(collections_grid(result, chosen) for chosen in by_measure)]


def systems_grid(result: SuiteResult) -> Grid:
    """Tabulate quality and cost with one row per system."""
    evaluation, tests = averages(result), across(result)
    facts = {system: costs(result, system) for system in result.systems}
    values = evaluation or Evaluation([], {system: {} for system in result.systems})
    grid = to_grid(values, tests, facts, note=_average_note(result, tests))
    if known_costs(facts.values()) and len(result.collections) > 1:
        return replace(grid, note=f"{grid.note} Times are medians over collections.")
    return grid


def collections_grid(result: SuiteResult, measures: Sequence[str]) -> Grid:
    """Tabulate one row per collection, one column per system and measure, and the average below."""
    columns = [(system, measure) for measure in measures for system in result.systems]
    rows = []
    for name, part in result.collections.items():
        values = [cell(part.evaluation, part.comparisons, s, m) for s, m in columns]
        queries = f"{len(part.evaluation.queries):,}"
        rows.append([Cell(name), Cell(part.located.split), Cell(queries), *values])
    average = averages(result)
    if average is not None and len(average.queries) > 1:
        tests = across(result)
        means = [cell(average, tests, s, m) for s, m in columns]
        rows.append([Cell("average"), Cell(""), Cell(f"{len(average.queries)} units"), *means])
    letter = letters(result.systems)
    several = len(result.systems) > 1
    headers = [f"{letter[s]} {s}".strip() if several else readable(m) for s, m in columns]
    family = next((p.comparisons for p in result.collections.values() if p.comparisons), None)
    note = f"{marks_legend(family)} over the collection's queries." if family else ""
    title = readable(measures[0]) if several else result.systems[0]
    return Grid(["Collection", "Split", "Queries", *headers], rows, note, left=2, title=title)


def suite_record(result: SuiteResult) -> dict[str, Any]:
    """Build the result file of a suite."""
    options, average = result.options, averages(result)
    return seal(
        {
            "suite": result.suite.name,
            "measures": options.measures,
            "settings": asdict(options),
            "average": {
                "of": average_units(result.members, result.collections),
                "systems": {
                    s: {m: average.mean(s, m) for m in options.measures} if average else {}
                    for s in result.systems
                },
                "comparisons": [asdict(comparison) for comparison in across(result)],
            },
            "costs": {system: costs(result, system) for system in result.systems},
            "collections": {name: part.to_json() for name, part in result.collections.items()},
            "missing": result.missing,
        }
    )


def _average_note(result: SuiteResult, tests: Sequence[Comparison]) -> str:
    """Say what the average is over; a group with missing parts is not what its paper averages."""
    units = average_units(result.members, result.collections)
    whole = units if result.suite.local else average_units(result.members, result.members)
    groups = []
    for unit, names in units.items():
        if whole[unit] != [unit]:
            present, all_ = len(names), len(whole[unit])
            groups.append(f"{unit} of {present}{f' of its {all_}' * (present < all_)} parts")
    of = f"{len(units)} of the suite's {len(whole)}" if len(units) < len(whole) else len(units)
    note = f"Average over {of} collection{'s' * (of != 1)}"
    note += f" ({', '.join(groups)})" if groups else ""
    if tests:
        note += f"; {marks_legend(tests)} over collections"
    return f"{note}."


COLOURS = 6  # --c1 to --c6 of the page


def render(result: SuiteResult) -> str:
    """Render the page; names are cleaned and escaped by the template."""
    overview, *by_measure = result_grids(result)
    measure, parts = result.options.measures[0], result.collections
    return render_template(
        "suite/report.html",
        title=result.suite.name,
        lead=_lead(result),
        measure=measure,
        systems=dict(zip(result.systems, letters(result.systems).values(), strict=True)),
        colour={s: i % COLOURS + 1 for i, s in enumerate(result.systems)},
        overview=overview,
        by_measure=by_measure,
        pictures=_pictures(result),
        dots=[
            (name, {s: part.evaluation.mean(s, measure) for s in result.systems})
            for name, part in parts.items()
        ],
        across=across(result),
        sections=[_section(name, part) for name, part in parts.items()],
        missing=result.missing,
        rules=next(iter(parts.values())).evaluation.rules,
        settings=formats.flat(
            {
                "systems": ", ".join(result.options.systems.values()),
                "measures": ", ".join(map(readable, result.options.measures)),
                "documents retrieved per query": result.options.depth,
                "tokens per text": result.options.max_length or "the model's own",
                "command": shlex.join(["rkd", *sys.argv[1:]]),
            }
        ),
        machine=formats.flat({**describe(), **versions()}),
    )


def _lead(result: SuiteResult) -> list[str]:
    """State the averages, and on how many collections systems differ significantly."""
    measure, average = result.options.measures[0], averages(result)
    sentences = []
    if average is not None:
        means = {s: average.mean(s, measure) for s in average.systems}
        ranked = sorted(means, key=lambda s: -means[s])
        number = len(average.queries)
        over = f"over {number} collections" if number > 1 else f"on {average.queries[0]}"
        values = ", ".join(f"{formats.one_line(s, 60)} {means[s]:.3f}" for s in ranked)
        sentences.append(f"{readable(measure)} {over}: {values}.")
    tests = [c for part in result.collections.values() for c in part.comparisons]
    for a, b in dict.fromkeys((c.a, c.b) for c in tests):
        pair = [c for c in tests if (c.a, c.b, c.measure) == (a, b, measure)]
        up = sum(c.significant() and c.difference > 0 for c in pair)
        down = sum(c.significant() and c.difference < 0 for c in pair)
        sentences.append(
            f"{formats.one_line(a, 60)} is significantly above {formats.one_line(b, 60)} on {up} "
            f"of {len(pair)} collections and below it on {down}."
        )
    return sentences


def _pictures(result: SuiteResult) -> list[dict[str, Any]]:
    """Show average quality against each cost."""
    average, measure = averages(result), result.options.measures[0]
    if average is None:
        return []
    systems = [
        (formats.one_line(s, LABEL_LIMIT), costs(result, s), average.mean(s, measure))
        for s in result.systems
    ]
    return trade_offs(systems, readable(measure))


def _section(name: str, part: Evaluated) -> dict[str, Any]:
    """Prepare what the page shows of one collection."""
    evaluation, judgments = part.evaluation, part.inputs["judgments"]
    columns = known_costs(part.costs.values())
    return {
        "name": name,
        "split": part.located.split,
        "other_splits": ", ".join(s for s in part.located.splits if s != part.located.split),
        "documents": part.documents,
        "queries": len(evaluation.queries),
        "without_relevant": evaluation.counts.get("queries_without_relevant", 0),
        "grid": to_grid(evaluation, part.comparisons),
        "comparisons": part.comparisons,
        "judged": {s: evaluation.holes(s, 10) for s in evaluation.systems},
        "costs": Grid(
            ["System", *(cost.heading for cost in columns)],
            [
                [Cell(system), *(cost.cell(facts) for cost in columns)]
                for system, facts in part.costs.items()
            ],
        ),
        "warnings": evaluation.warnings,
        "qrels_digest": judgments["qrels_digest"],
        "texts_digest": judgments["texts_digest"],
    }
