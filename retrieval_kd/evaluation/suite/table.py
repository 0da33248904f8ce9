"""What a suite's result says in tables: averages, costs, one row per collection; and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from retrieval_kd.evaluation.report.costs import known, note
from retrieval_kd.evaluation.report.grid import Cell, Grid
from retrieval_kd.evaluation.report.table import cell, letters, marks_legend
from retrieval_kd.evaluation.result_file import seal
from retrieval_kd.evaluation.suite.run import SuiteResult
from retrieval_kd.evaluation.suite.spec import average_units
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison, compare


def averages(result: SuiteResult) -> Evaluation | None:
    """The suite's averages: an evaluation whose "queries" are the collections.

    A group of collections is one of them. None if no collection that counts was evaluated.
    """
    units = average_units(result.members, result.collections)
    if not units:
        return None
    evaluations = {name: found.evaluation for name, found in result.collections.items()}
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
    """Tests between systems with collections as the unit: randomisation, exact where they are few.

    They ask whether a system would be better on other collections like these, which the tests
    within a collection, over its queries, do not. With fewer than six collections no two-sided p
    falls below .05.
    """
    evaluation = averages(result)
    if evaluation is None or len(evaluation.queries) < 2:
        return []
    return compare(evaluation, result.options.baseline, method="randomisation")


def costs(result: SuiteResult, system: str) -> dict[str, Any]:
    """A system's costs over all collections, under the names that one collection's have."""
    of = [(found.documents, found.costs[system]) for found in result.collections.values()]
    total: dict[str, Any] = {}
    for key in ("kind", "layers", "parameters", "dimensions", "document_tokens"):
        values = [facts[key] for _, facts in of if facts.get(key) is not None]
        if values:
            total[key] = values[0]
    sizes = [(n, facts["index_bytes"]) for n, facts in of if "index_bytes" in facts]
    if sizes:
        total["index_bytes"] = sum(size for _, size in sizes)
        documents = sum(n for n, _ in sizes)
        total["bytes_per_document"] = round(total["index_bytes"] / max(1, documents), 1)
        total["index"] = "cached"
    for key in ("documents_per_second", "latency_ms_p50", "latency_ms_p95", "queries_per_second"):
        values = [facts[key] for _, facts in of if facts.get(key) is not None]
        if values:
            total[key] = round(median(values), 3)
    if total.get("documents_per_second"):
        total["index"] = "made now"
    return total


def systems_grid(result: SuiteResult) -> Grid:
    """Quality and cost of each system in one row."""
    evaluation, tests = averages(result), across(result)
    measures = result.options.measures if evaluation is not None else []
    paid = {system: costs(result, system) for system in result.systems}
    columns = known(paid.values())
    rows = []
    for system, letter in letters(result.systems).items():
        quality = [cell(evaluation, tests, system, m) for m in measures if evaluation is not None]
        bought = [cost.cell(paid[system]) for cost in columns]
        rows.append([Cell(letter), Cell(system), *quality, *bought])
    headers = [" ", "System", *map(readable, measures), *(cost.heading for cost in columns)]
    medians = (
        "Times are medians over collections." if columns and len(result.collections) > 1 else ""
    )
    told = " ".join(filter(None, [_average_note(result, tests), note(columns), medians]))
    return Grid(headers, rows, told, left=2)


def result_grids(result: SuiteResult) -> list[Grid]:
    """Collections × systems for each measure; collections × measures where there is one system."""
    measures = result.options.measures
    if len(result.systems) > 1:
        return [collections_grid(result, [measure]) for measure in measures]
    return [collections_grid(result, measures)]


def collections_grid(result: SuiteResult, measures: Sequence[str]) -> Grid:
    """One row per collection, one column per system and measure, and the average below."""
    columns = [(system, measure) for measure in measures for system in result.systems]
    rows = []
    for name, found in result.collections.items():
        evaluation = found.evaluation
        values = [cell(evaluation, found.comparisons, s, m) for s, m in columns]
        queries = f"{len(evaluation.queries):,}"
        rows.append([Cell(name), Cell(found.located.split), Cell(queries), *values])
    average = averages(result)
    if average is not None and len(average.queries) > 1:
        means = [cell(average, across(result), s, m) for s, m in columns]
        rows.append([Cell("average"), Cell(""), Cell(f"{len(average.queries)} units"), *means])
    marked = letters(result.systems)
    named = len(result.systems) > 1
    headers = [f"{marked[s]} {s}".strip() if named else readable(m) for s, m in columns]
    family = next((f.comparisons for f in result.collections.values() if f.comparisons), None)
    note = f"{marks_legend(family)} over the collection's queries." if family else ""
    title = readable(measures[0]) if named else result.systems[0]
    return Grid(["Collection", "Split", "Queries", *headers], rows, note, left=2, title=title)


def suite_record(result: SuiteResult) -> dict[str, Any]:
    """The result file of a suite."""
    options, average = result.options, averages(result)
    units = average_units(result.members, result.collections)
    return seal(
        {
            "suite": result.suite.name,
            "measures": options.measures,
            "settings": asdict(options),
            "average": {
                "of": units,
                "systems": {
                    s: {m: average.mean(s, m) for m in options.measures} if average else {}
                    for s in result.systems
                },
                "comparisons": [asdict(comparison) for comparison in across(result)],
            },
            "costs": {system: costs(result, system) for system in result.systems},
            "collections": {name: c.to_json() for name, c in result.collections.items()},
            "missing": result.missing,
        }
    )


def _average_note(result: SuiteResult, tests: Sequence[Comparison]) -> str:
    units = average_units(result.members, result.collections)
    wanted = units if result.suite.local else average_units(result.members, result.members)
    grouped = [
        f"{unit} of {_parts(names, wanted[unit])}"
        for unit, names in units.items()
        if wanted[unit] != [unit]
    ]
    of = f"{len(units)} of the suite's {len(wanted)}" if len(units) < len(wanted) else len(units)
    note = f"Average over {of} collection{'s' * (of != 1)}"
    note += f" ({', '.join(grouped)})" if grouped else ""
    if tests:
        note += f"; {marks_legend(tests)} over collections"
    return f"{note}."


def _parts(present: Sequence[str], wanted: Sequence[str]) -> str:
    """A group of which parts are missing is not what its paper averages: that is said."""
    if len(present) < len(wanted):
        return f"{len(present)} of its {len(wanted)} parts"
    return f"{len(present)} parts"
