"""The HTML report of a suite: one self-contained page, by the template `suite/report.html`."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.grid import Cell, Grid
from retrieval_kd.evaluation.report.page import LABEL_LIMIT, render_template
from retrieval_kd.evaluation.report.pictures import trade_offs
from retrieval_kd.evaluation.report.table import known_costs, letters, to_grid
from retrieval_kd.evaluation.suite.run import Evaluated, SuiteResult
from retrieval_kd.evaluation.suite.table import across, averages, costs, result_grids
from retrieval_kd.hardware import describe, versions
from retrieval_kd.metrics.names import readable

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
