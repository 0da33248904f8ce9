"""Which pictures a report shows, by section: heading, drawing and caption of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval_kd.evaluation.report import figures, formats
from retrieval_kd.evaluation.report.data import ReportData
from retrieval_kd.evaluation.report.table import Facts
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import bootstrap_interval

MOST_POINTS = 1_500  # of a scatter plot: each is an element of the page
AXES = (  # field of a system's costs, its unit, the axis, the heading
    ("latency_ms_p50", 1.0, "median latency of a query, ms", "Quality and latency"),
    ("index_bytes", 1e6, "size of the index, MB", "Quality and index size"),
    ("parameters", 1e6, "parameters, millions", "Quality and model size"),
)
Picture = dict[str, Any]  # heading, svg, caption


def pictures(data: ReportData) -> dict[str, list[Picture]]:
    """Map section → the pictures that the data allow."""
    systems = [(row.label, vars(row), row.mean(data.measure)) for row in data.systems]
    students = data.diagnostics["students"].values() if data.diagnostics else []
    scatters = [_scatter(data, s, f"figure-scatter-{i}") for i, s in enumerate(students)]
    sections: dict[str, Sequence[Picture | None]] = {
        "quality": [_dots(data), _differences(data)],
        "cost": trade_offs(systems, readable(data.measure)),
        "training": [_curves(data)],
        "teacher": [_reliability(data), *scatters],
    }
    return {name: [p for p in section if p is not None] for name, section in sections.items()}


def trade_offs(systems: Sequence[tuple[str, Facts, float | None]], measure: str) -> list[Picture]:
    """Show quality against each cost that is known for at least one system.

    Args:
        systems: label, costs and mean of each; its place in the list decides its colour.
    """
    shown = []
    for field, unit, axis, heading in AXES:
        points = [
            (label, facts[field] / unit, mean, place)
            for place, (label, facts, mean) in enumerate(systems)
            if mean is not None and facts.get(field)
        ]
        if not points:
            continue
        caption = "Up is better, left is cheaper; for every hollow mark, a filled one is at least "
        caption += "as good and as cheap."
        unknown = [s for s, facts, mean in systems if mean is not None and not facts.get(field)]
        if unknown:
            caption += f" Unknown, so not shown: {', '.join(unknown)}."
        svg = figures.pareto(points, axis, measure, f"figure-{field}")
        shown.append({"heading": heading, "svg": svg, "caption": caption})
    return shown


def _dots(data: ReportData) -> Picture | None:
    rows = [row for row in data.systems if row.mean(data.measure) is not None]
    if len(rows) < 2:
        return None
    measure = readable(data.measure)
    seeds = {
        row.label: row.measures[data.measure].get("per_seed") or [row.mean(data.measure)]
        for row in rows
    }
    by_query = {row.label: row.per_query.get(data.measure, {}) for row in rows}
    intervals = {
        label: bootstrap_interval(np.array(list(values.values())))
        for label, values in by_query.items()
        if len(values) > 1
    }
    svg = figures.quality_dots(seeds, intervals, measure, "figure-dots")
    caption = "Mean over queries"
    if intervals:
        caption += ", with the 95% bootstrap interval over queries"
    if any(len(values) > 1 for values in seeds.values()):
        caption += "; the ticks below are single seeds"
    caption += ". Intervals that overlap may still differ significantly: the tests are paired."
    return {"heading": f"{measure} of every system", "svg": svg, "caption": caption}


def _differences(data: ReportData) -> Picture | None:
    if data.main is None:
        return None
    a, b = data.system(data.main.student), data.system(data.main.baseline)
    if a is None or b is None or a is b:
        return None
    first, second = (row.per_query.get(data.measure, {}) for row in (a, b))
    differences = [first[query] - second[query] for query in first if query in second]
    if not differences:
        return None
    won, lost = sum(d > 1e-12 for d in differences), sum(d < -1e-12 for d in differences)
    measure = readable(data.measure)
    caption = (
        f"{measure} of {data.label(a.name)} minus that of {data.label(b.name)}, query by query: "
        f"{won} won, {lost} lost, {len(differences) - won - lost} equal."
    )
    svg = figures.difference_bars(differences, f"difference in {measure}", "figure-differences")
    return {"heading": "Query by query", "svg": svg, "caption": caption}


def _curves(data: ReportData) -> Picture | None:
    if not data.curves:
        return None
    keys = [k for curves in data.curves.values() for c in curves for point in c for k in point]
    wanted = f"dev_{data.measure}"
    key = wanted if wanted in keys else next((k for k in keys if k.startswith("dev")), wanted)
    label = f"dev {readable(key.removeprefix('dev_'))}"
    svg = figures.learning_curves(data.curves, key, label, "figure-curves", _order(data))
    caption = (
        "Training loss, and quality on the development split, by training step. Losses of "
        "different objectives have different scales: compare their shapes, not their heights."
    )
    if any(len(curves) > 1 for curves in data.curves.values()):
        caption += " Thin lines are single seeds, the thick one is their mean."
    return svg and {"heading": "Learning curves", "svg": svg, "caption": caption}


def _order(data: ReportData) -> list[str]:
    """A system has the same colour in all pictures."""
    return [row.label for row in data.systems]


def _reliability(data: ReportData) -> Picture | None:
    if data.diagnostics is None:
        return None
    systems = [data.diagnostics["teacher"], *data.diagnostics["students"].values()]
    bins = {
        data.label(s["name"]): s["calibration"]["bins"] for s in systems if s.get("calibration")
    }
    if not bins:
        return None
    svg = figures.reliability_plot(bins, "figure-reliability", _order(data))
    caption = (
        "Scores converted to probabilities of relevance by a map fitted on other queries. On the "
        "dashed line the probabilities are right, below it they are too high. Unjudged documents "
        "count as not relevant."
    )
    return {"heading": "Reliability", "svg": svg, "caption": caption}


def _scatter(data: ReportData, student: dict[str, Any], name: str) -> Picture | None:
    points = student.get("points", [])
    pairs = [(t, s, bool(r)) for t, s, r in points if math.isfinite(t) and math.isfinite(s)]
    if len(pairs) < 3:
        return None
    step = math.ceil(len(pairs) / MOST_POINTS)
    caption = "Each point is a query and a document that both ranked; "
    caption += f"{formats.count(len(pairs[::step]))} shown"
    caption += f" of {formats.count(len(pairs))}." if step > 1 else "."
    tau = student["loyalty"]["mean"].get("kendall")
    if tau is not None:
        caption += f" Kendall’s τ within a query, on average: {tau:.2f}."
    svg = figures.score_scatter(pairs[::step], name)
    return {"heading": f"Teacher and {data.label(student['name'])}", "svg": svg, "caption": caption}
