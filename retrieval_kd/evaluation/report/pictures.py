"""Which pictures a report shows, by section: heading, picture and caption of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval_kd.evaluation.report import figures, formats, trade_figures
from retrieval_kd.evaluation.report.data import ReportData, SystemRow
from retrieval_kd.evaluation.report.figures import reliability_plot
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import bootstrap_interval

MOST_POINTS = 1_500  # of a scatter plot: each is an element of the page
Picture = dict[str, Any]


def pictures(data: ReportData) -> dict[str, list[Picture]]:
    """Section → its pictures, as far as the data allow them."""
    found: dict[str, Sequence[Picture | None]] = {
        "quality": [_dots(data), _differences(data)],
        "cost": trade_figures.trade_offs(
            [(row.label, vars(row), row.mean(data.measure)) for row in data.systems],
            readable(data.measure),
        ),
        "training": [_curves(data)],
        "teacher": [_reliability(data), *_scatters(data)],
    }
    return {section: [p for p in made if p is not None] for section, made in found.items()}


def _dots(data: ReportData) -> Picture | None:
    seeds = {}
    for row in data.systems:
        mean = row.mean(data.measure)
        if mean is not None:
            seeds[row.label] = row.measures[data.measure].get("per_seed") or [mean]
    if len(seeds) < 2:
        return None
    by_label = {row.label: row.per_query.get(data.measure, {}) for row in data.systems}
    intervals = {
        label: bootstrap_interval(np.array(list(by_label[label].values())))
        for label in seeds
        if len(by_label[label]) > 1
    }
    svg = trade_figures.quality_dots(seeds, intervals, readable(data.measure), "figure-dots")
    caption = "Mean over queries"
    if intervals:
        caption += ", with the 95% bootstrap interval over queries"
    if any(len(values) > 1 for values in seeds.values()):
        caption += "; the ticks below are single seeds"
    caption += ". Intervals that overlap may still differ significantly: the tests are paired."
    return {"heading": f"{readable(data.measure)} of every system", "svg": svg, "caption": caption}


def _curves(data: ReportData) -> Picture | None:
    if not data.curves:
        return None
    keys = [k for curves in data.curves.values() for c in curves for point in c for k in point]
    wanted = f"dev_{data.measure}"
    key = wanted if wanted in keys else next((k for k in keys if k.startswith("dev")), wanted)
    label = f"dev {readable(key.removeprefix('dev_'))}"
    order = [row.label for row in data.systems]  # a system has one colour in all pictures
    svg = figures.learning_curves(data.curves, key, label, "figure-curves", order)
    caption = (
        "Training loss, and quality on the development split, by training step. Losses of "
        "different objectives have different scales: compare their course, not their height."
    )
    if any(len(curves) > 1 for curves in data.curves.values()):
        caption += " Thin lines are single seeds, the thick one is their mean."
    return svg and {"heading": "Learning curves", "svg": svg, "caption": caption}


def _reliability(data: ReportData) -> Picture | None:
    if data.diagnostics is None:
        return None
    systems = [data.diagnostics["teacher"], *data.diagnostics["students"].values()]
    bins = {
        data.label(s["name"]): s["calibration"]["bins"] for s in systems if s.get("calibration")
    }
    if not bins:
        return None
    order = [row.label for row in data.systems]
    svg = reliability_plot(bins, "figure-reliability", order)
    caption = (
        "Scores as probabilities of relevance, fitted on other queries: on the dashed line they "
        "mean what they say, below it they promise too much. Unjudged documents count as not "
        "relevant."
    )
    return {"heading": "Reliability", "svg": svg, "caption": caption}


def _scatters(data: ReportData) -> list[Picture | None]:
    if data.diagnostics is None:
        return [_scatter(data.scatter, "What the student learned", "figure-scatter", "")]
    found: list[Picture | None] = []
    for i, student in enumerate(data.diagnostics["students"].values()):
        label = data.label(student["name"])
        tau = student["loyalty"]["mean"].get("kendall")
        told = "" if tau is None else f" Kendall’s τ within a query, on average: {tau:.2f}."
        heading = f"Teacher and {label}"
        found.append(_scatter(student.get("points", []), heading, f"figure-scatter-{i}", told))
    return found


def _scatter(points: Sequence[Any], heading: str, name: str, told: str) -> Picture | None:
    pairs = [(t, s, bool(r)) for t, s, r in points if math.isfinite(t) and math.isfinite(s)]
    if len(pairs) < 3:
        return None
    from scipy.stats import spearmanr

    step = math.ceil(len(pairs) / MOST_POINTS)
    caption = "Each point is a query and a document that both ranked; "
    caption += f"{formats.count(len(pairs[::step]))} shown"
    caption += f" of {formats.count(len(pairs))}. " if step > 1 else ". "
    of_teacher, of_student = [p[0] for p in pairs], [p[1] for p in pairs]
    # where one of them scores all alike there is no order to correlate
    if not told and len(set(of_teacher)) > 1 and len(set(of_student)) > 1:
        rho = float(spearmanr(of_teacher, of_student).statistic)
        told = f"Rank correlation (Spearman) over all of them: {rho:.2f}."
    svg = figures.score_scatter(pairs[::step], name)
    return {"heading": heading, "svg": svg, "caption": (caption + told).replace("  ", " ")}


def _differences(data: ReportData) -> Picture | None:
    if data.main is None:
        return None
    a, b = data.system(data.main.student), data.system(data.main.baseline)
    if a is None or b is None or a is b:
        return None
    differences = per_query_difference(a, b, data.measure)
    if not differences:
        return None
    won, lost = sum(d > 1e-12 for d in differences), sum(d < -1e-12 for d in differences)
    names = data.label(a.name), data.label(b.name)
    caption = (
        f"{readable(data.measure)} of {names[0]} less that of {names[1]}, query by query: "
        f"{won} won, {lost} lost, {len(differences) - won - lost} the same."
    )
    label = f"difference in {readable(data.measure)}"
    svg = figures.difference_bars(differences, label, "figure-differences")
    return {"heading": "Query by query", "svg": svg, "caption": caption}


def per_query_difference(a: SystemRow, b: SystemRow, measure: str) -> list[float]:
    of_a, of_b = a.per_query.get(measure, {}), b.per_query.get(measure, {})
    return [of_a[query] - of_b[query] for query in of_a if query in of_b]
