"""A suite's report: one self-contained HTML page, by the template `suite_report.html`.

As in `report.py`, names are cleaned here, escaped by the template, and the page asks for nothing.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import jinja2

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.costs import known
from retrieval_kd.evaluation.report.grid import Cell, Grid
from retrieval_kd.evaluation.report.table import letters, to_grid
from retrieval_kd.evaluation.report.trade_figures import trade_offs
from retrieval_kd.evaluation.suite.run import Evaluated, SuiteResult
from retrieval_kd.evaluation.suite.table import across, averages, costs, result_grids, systems_grid
from retrieval_kd.files import write_text
from retrieval_kd.hardware import describe, versions
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison, format_p

COLOURS = 6  # --c1 to --c6 of the page


def write_suite_report(result: SuiteResult, path: str | Path) -> None:
    """Write the page, atomically."""
    write_text(path, render(result))


def render(result: SuiteResult) -> str:
    """The page as a string."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval_kd.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "readable": readable,
        "p": format_p,
        "count": formats.count,
        "signed": formats.signed,
        "line": lambda text: formats.one_line(str(text), 200),
        "cost": lambda text: formats.one_line(str(text), 60),
    }
    first = next(iter(result.collections.values()))
    return environment.get_template("suite/report.html").render(
        title=result.suite.name,
        lead=lead(result),
        measure=result.options.measures[0],
        systems=dict(zip(result.systems, letters(result.systems).values(), strict=True)),
        colour={s: i % COLOURS + 1 for i, s in enumerate(result.systems)},
        overview=systems_grid(result),
        by_measure=result_grids(result),
        pictures=pictures(result),
        dots=dots(result),
        across=across(result),
        sections=[section(name, found) for name, found in result.collections.items()],
        missing=result.missing,
        rules=first.evaluation.rules,
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


def lead(result: SuiteResult) -> list[str]:
    """The finding in sentences: the average, and where systems differ significantly."""
    measure, average = result.options.measures[0], averages(result)
    told = []
    if average is not None:
        means = {s: average.mean(s, measure) for s in average.systems}
        ranked = sorted(means, key=lambda s: -means[s])
        number = len(average.queries)
        over = f"over {number} collections" if number > 1 else f"on {average.queries[0]}"
        values = ", ".join(f"{formats.one_line(s, 60)} {means[s]:.3f}" for s in ranked)
        told.append(f"{readable(measure)} {over}: {values}.")
    for a, b in dict.fromkeys(
        (c.a, c.b) for found in result.collections.values() for c in found.comparisons
    ):
        tests = _tests(result, a, b, measure)
        up = sum(c.significant() and c.difference > 0 for c in tests)
        down = sum(c.significant() and c.difference < 0 for c in tests)
        told.append(
            f"{formats.one_line(a, 60)} is significantly above {formats.one_line(b, 60)} on {up} "
            f"of {len(tests)} collections and below it on {down}."
        )
    return told


def pictures(result: SuiteResult) -> list[dict[str, Any]]:
    """Average quality against each cost; none where no collection counts for the average."""
    average, measure = averages(result), result.options.measures[0]
    if average is None:
        return []
    systems = [
        (formats.one_line(s, 48), costs(result, s), average.mean(s, measure))
        for s in result.systems
    ]
    return trade_offs(systems, readable(measure))


def dots(result: SuiteResult) -> list[dict[str, Any]]:
    """Per collection, each system's place on a line from 0 to 1 (%)."""
    measure = result.options.measures[0]
    rows = []
    for name, found in result.collections.items():
        values = {s: found.evaluation.mean(s, measure) for s in result.systems}
        rows.append({"name": name, "values": values})
    return rows


def section(name: str, found: Evaluated) -> dict[str, Any]:
    """What the page says of one collection."""
    counts = found.evaluation.counts
    judged = {s: found.evaluation.holes(s, 10) for s in found.evaluation.systems}
    inputs = found.inputs["judgments"]
    others = [s for s in found.located.splits if s != found.located.split]
    return {
        "name": name,
        "split": found.located.split,
        "other_splits": ", ".join(others),
        "documents": found.documents,
        "queries": len(found.evaluation.queries),
        "without_relevant": counts.get("queries_without_relevant", 0),
        "grid": to_grid(found.evaluation, found.comparisons),
        "comparisons": found.comparisons,
        "judged": judged,
        "costs": _cost_grid(found),
        "warnings": found.evaluation.warnings,
        "qrels_digest": inputs["qrels_digest"],
        "texts_digest": inputs["texts_digest"],
    }


def _cost_grid(found: Evaluated) -> Grid:
    columns = known(found.costs.values())
    rows = [
        [Cell(system), *(cost.cell(facts) for cost in columns)]
        for system, facts in found.costs.items()
    ]
    return Grid(["System", *(cost.heading for cost in columns)], rows)


def _tests(result: SuiteResult, a: str, b: str, measure: str) -> list[Comparison]:
    return [
        c
        for found in result.collections.values()
        for c in found.comparisons
        if (c.a, c.b, c.measure) == (a, b, measure)
    ]
