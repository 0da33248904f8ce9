"""The pictures of a report by section: heading, drawing and caption of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.ticker
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.data import Curve, ReportData
from retrieval_kd.evaluation.report.svg import (
    DASHES,
    FAINT,
    MARKERS,
    SERIES,
    WIDTH,
    new_axes,
    to_svg,
    with_style,
)
from retrieval_kd.evaluation.report.trade_offs import Picture, trade_offs
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import bootstrap_interval


def pictures(data: ReportData) -> dict[str, list[Picture]]:
    """Map section → the pictures that the data allow."""
    systems = [(row.label, vars(row), data.mean(row.name)) for row in data.systems]
    students = data.diagnostics["students"].values() if data.diagnostics else []
    scatters = [_scatter(data, s, f"figure-scatter-{i}") for i, s in enumerate(students)]
    sections: dict[str, Sequence[Picture | None]] = {
        "quality": [_dots(data), _differences(data)],
        "cost": trade_offs(systems, readable(data.measure)),
        "training": [_curves(data)],
        "teacher": [_reliability(data), *scatters],
    }
    return {name: [p for p in section if p is not None] for name, section in sections.items()}


@with_style
def _dots(data: ReportData) -> Picture | None:
    """Draw each system's mean with its interval over queries, and every seed as a small mark."""
    evaluation, measure = data.evaluation(), readable(data.measure)
    rows = [row for row in data.systems if data.mean(row.name) is not None]
    if len(rows) < 2:
        return None
    several = len(evaluation.queries) > 1
    figure, axes = new_axes(0.75 + 0.36 * len(rows))
    places = np.arange(len(rows))[::-1]
    for i, (place, row) in enumerate(zip(places, rows, strict=True)):
        colour, seeds = SERIES[i % 6], evaluation.per_seed(row.name, data.measure)
        if several:
            interval = bootstrap_interval(evaluation.values(row.name, data.measure))
            axes.plot(interval, [place, place], color=colour, linewidth=1.4)
        if len(seeds) > 1:
            below = [place - 0.26] * len(seeds)
            axes.plot(seeds, below, "|", color=colour, markersize=5, markeredgewidth=1)
        axes.plot([np.mean(seeds)], [place], MARKERS[i % 6], color=colour, markersize=6.5)
    axes.set_yticks(places, [row.label for row in rows])
    axes.set_ylim(-0.7, len(rows) - 0.4)
    axes.set_xlabel(measure)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    caption = "Mean over queries"
    if several:
        caption += ", with the 95% bootstrap interval over queries"
    if any(evaluation.spread(row.name, data.measure) is not None for row in rows):
        caption += "; the ticks below are single seeds"
    caption += ". Intervals that overlap may still differ significantly: the tests are paired."
    svg = to_svg(figure, "figure-dots", f"{measure} of {len(rows)} systems")
    return {"heading": f"{measure} of every system", "svg": svg, "caption": caption}


@with_style
def _differences(data: ReportData) -> Picture | None:
    """Draw per-query differences, sorted: the area above zero was won, that below was lost."""
    a, b = (data.main.student, data.main.baseline) if data.main else ("", "")
    if a == b or data.mean(a) is None or data.mean(b) is None:
        return None
    evaluation, measure = data.evaluation(), readable(data.measure)
    values = evaluation.values(a, data.measure) - evaluation.values(b, data.measure)
    values = np.sort(values)[::-1]
    figure, axes = new_axes(3.0)
    edges = np.arange(len(values) + 1)
    for chosen, colour in ((np.maximum(values, 0), SERIES[0]), (np.minimum(values, 0), SERIES[1])):
        axes.stairs(chosen, edges, fill=True, color=colour, linewidth=0)
    axes.axhline(0, color=FAINT, linewidth=0.7)
    axes.set(xlabel="queries, sorted by difference", ylabel=f"difference in {measure}")
    axes.margins(x=0.01)
    won, lost = (values > 1e-12).sum(), (values < -1e-12).sum()
    caption = (
        f"{measure} of {data.label(a)} minus that of {data.label(b)}, query by query: "
        f"{won} won, {lost} lost, {len(values) - won - lost} equal."
    )
    about = f"difference in {measure} for each of {len(values)} queries"
    svg = to_svg(figure, "figure-differences", about)
    return {"heading": "Query by query", "svg": svg, "caption": caption}


@with_style
def _curves(data: ReportData) -> Picture | None:
    """Draw loss and development quality by step, if there is a point.

    One line per student shows the mean over its seeds at the steps that all seeds have; each seed
    is a thin line behind it.
    """
    every = [curve for curves in data.curves.values() for curve in curves]
    names = [name for curve in every for point in curve for name in point]
    wanted = f"dev_{data.measure}"
    dev = wanted if wanted in names else next((n for n in names if n.startswith("dev")), wanted)
    labels = {"loss": "training loss", dev: f"dev {readable(dev.removeprefix('dev_'))}"}
    keys = [key for key in labels if any(_points(curve, key) for curve in every)]
    if not keys:
        return None
    colours = _colours(data, data.curves)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.5 * len(keys)), layout="constrained")
    panels = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    for axes, key in zip(panels, keys, strict=True):
        for dash, (student, curves) in enumerate(data.curves.items()):
            colour, seeds = SERIES[colours[student]], [_points(curve, key) for curve in curves]
            for values in seeds if len(seeds) > 1 else []:
                axes.plot(*_xy(values), color=colour, linewidth=0.6, alpha=0.6)
            common = [s for s in (seeds[0] if seeds else {}) if all(s in v for v in seeds)]
            mean = {step: float(np.mean([v[step] for v in seeds])) for step in common}
            axes.plot(
                *_xy(mean), color=colour, linestyle=DASHES[dash % 4], label=student, markersize=3.5,
                marker=MARKERS[colours[student]] if len(mean) <= 30 else "",
            )  # fmt: skip
        axes.set_ylabel(labels[key])
        axes.margins(x=0.02)
    panels[-1].set_xlabel("step")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=min(3, len(data.curves)))
    caption = (
        "Training loss, and quality on the development split, by training step. Losses of "
        "different objectives have different scales: compare their shapes, not their heights."
    )
    if any(len(curves) > 1 for curves in data.curves.values()):
        caption += " Thin lines are single seeds, the thick one is their mean."
    svg = to_svg(figure, "figure-curves", f"learning curves of {', '.join(data.curves)}")
    return {"heading": "Learning curves", "svg": svg, "caption": caption}


def _points(curve: Curve, key: str) -> dict[float, float]:
    """Map step → finite value."""
    pairs = [(p.get("step"), p.get(key)) for p in curve]
    return {s: v for s, v in pairs if s is not None and v is not None and math.isfinite(v)}


def _xy(values: Mapping[float, float]) -> tuple[list[float], list[float]]:
    return list(values), list(values.values())


def _colours(data: ReportData, labels: Mapping[str, Any]) -> dict[str, int]:
    """Number the colours so that a system has the same one in all pictures."""
    every = dict.fromkeys([*(row.label for row in data.systems), *labels])
    return {label: place % 6 for place, label in enumerate(every)}


def _reliability(data: ReportData) -> Picture | None:
    if data.diagnostics is None:
        return None
    systems = [data.diagnostics["teacher"], *data.diagnostics["students"].values()]
    bins = {
        data.label(s["name"]): s["calibration"]["bins"] for s in systems if s.get("calibration")
    }
    if not bins:
        return None
    svg = reliability_plot(bins, "figure-reliability", _colours(data, bins))
    caption = (
        "Scores converted to probabilities of relevance by a map fitted on other queries. On the "
        "dashed line the probabilities are right, below it they are too high. Unjudged documents "
        "count as not relevant."
    )
    return {"heading": "Reliability", "svg": svg, "caption": caption}


@with_style
def reliability_plot(
    bins: Mapping[str, Sequence[Mapping[str, float]]], name: str, colours: Mapping[str, int]
) -> Markup:
    """Plot the observed share of relevant documents against the predicted probability.

    Both axes are logarithmic, because few documents are relevant; zeros are drawn at the lower
    edge.
    """
    figure, axes = new_axes(3.5)
    shown = [v for b in bins.values() for x in b for v in (x["predicted"], x["observed"]) if v > 0]
    floor = 10.0 ** np.floor(np.log10(min(shown, default=0.1)))
    axes.plot([floor, 1], [floor, 1], color=FAINT, linewidth=0.8, linestyle="--")
    for system, rows in bins.items():
        pairs = np.array([(b["predicted"], b["observed"]) for b in rows])  # (bins, 2)
        axes.plot(
            *np.maximum(pairs, floor).T, color=SERIES[colours[system]],
            marker=MARKERS[colours[system]], markersize=4.5, linewidth=1.2, label=system,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.15), ylim=(floor, 1.15))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set(xlabel="predicted probability of relevance", ylabel="share judged relevant")
    axes.legend(loc="upper left")
    return to_svg(figure, name, f"reliability of {', '.join(bins)}")


@with_style
def _scatter(data: ReportData, student: dict[str, Any], name: str) -> Picture | None:
    """Plot the student's score against the teacher's, relevant documents on top."""
    points = student.get("points", [])
    points = [(t, s, bool(r)) for t, s, r in points if math.isfinite(t) and math.isfinite(s)]
    if len(points) < 3:
        return None
    figure, axes = new_axes(3.5)
    for relevant, colour, marker, alpha, label in (
        (False, SERIES[5], "o", 0.35, "other"),
        (True, SERIES[1], "D", 0.75, "judged relevant"),
    ):
        chosen = np.array([(t, s) for t, s, r in points if r == relevant])
        if len(chosen):
            axes.plot(
                *chosen.T, marker, color=colour, alpha=alpha, markersize=3.4, markeredgewidth=0,
                label=label,
            )  # fmt: skip
    axes.set(xlabel="teacher’s score", ylabel="student’s score")
    axes.legend(loc="upper left", handletextpad=0.1)
    count = formats.count(len(points))
    caption = f"Each point is a query and a document that both ranked; {count} shown."
    tau = student["loyalty"]["mean"].get("kendall")
    if tau is not None:
        caption += f" Kendall’s τ within a query, on average: {tau:.2f}."
    svg = to_svg(figure, name, f"teacher's against student's score of {len(points)} pairs")
    return {"heading": f"Teacher and {data.label(student['name'])}", "svg": svg, "caption": caption}
