"""The report's pictures: matplotlib, as inline SVG whose colours are the page's CSS variables.

So one picture serves the light and the dark page, and its text is text in the page's font. Those
of quality and cost are in `trade_figures.py`, which are shown when in `report_pictures.py`.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from retrieval_kd.evaluation.diagnostics.failures import bounds
from retrieval_kd.evaluation.report.data import Curve

# colours that mean "whatever the page says"
INK, FAINT, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#a10001", "#a10002", "#a10003", "#a10004", "#a10005", "#a10006")
VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--rule", PAPER: "--paper"}
VARIABLES |= {colour: f"--c{i}" for i, colour in enumerate(SERIES, start=1)}
MARKERS, DASHES = "osD^vP", ("-", "--", "-.", ":")
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}
WIDTH = 5.0  # inches; 360 units of the SVG, about a phone's width


def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an element of an HTML page: no fixed size, no URL, no ID used twice."""
    raw = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(raw, format="svg", transparent=True, bbox_inches="tight", metadata=nothing)
    svg = raw.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    tag = re.match(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert tag and box, "matplotlib writes both"
    svg = svg[tag.end() :]
    svg = re.sub(r'(\bid=")', rf"\g<1>{name}-", svg)
    svg = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(description)}">'
    return Markup(head + svg)  # nothing here but matplotlib's own, whose texts it escapes


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def with_style(draw: Any) -> Any:
    """Run a drawing function under `STYLE`, leaving the user's matplotlib settings alone."""

    def styled(*args: Any, **options: Any) -> Markup:
        with (
            warnings.catch_warnings(),
            matplotlib.rc_context({**STYLE, "svg.hashsalt": draw.__name__}),
        ):
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's fonts have it
            return draw(*args, **options)

    styled.__doc__ = draw.__doc__
    return styled


def _points(curve: Curve, key: str) -> dict[float, float]:
    """Step → value, where there is one."""
    pairs = [(p.get("step"), p.get(key)) for p in curve]
    return {s: v for s, v in pairs if s is not None and v is not None and math.isfinite(v)}


@with_style
def learning_curves(
    curves: Mapping[str, Sequence[Curve]],
    key: str,
    label: str,
    name: str,
    order: Sequence[str] = (),
) -> Markup | None:
    """Loss and development quality by step; None without any point.

    One line per student, the mean over its seeds at the steps that all have; each seed is a thin
    line behind it. A student's colour follows from its place in `order`, those not there come
    after.
    """
    places = {student: i for i, student in enumerate(dict.fromkeys([*order, *curves]))}
    every = [curve for of_student in curves.values() for curve in of_student]
    keys = [k for k in ("loss", key) if any(_points(curve, k) for curve in every)]
    if not keys:
        return None
    figure = _figure(0.9 + 1.5 * len(keys))
    panels = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    for axes, k in zip(panels, keys, strict=True):
        for dash, (student, of_student) in enumerate(curves.items()):
            colour, seeds = SERIES[places[student] % 6], [_points(curve, k) for curve in of_student]
            for values in seeds if len(seeds) > 1 else []:
                axes.plot(*_xy(values), color=colour, linewidth=0.6, alpha=0.6)
            common = [s for s in (seeds[0] if seeds else {}) if all(s in v for v in seeds)]
            mean = {step: float(np.mean([v[step] for v in seeds])) for step in common}
            axes.plot(
                *_xy(mean), color=colour, linestyle=DASHES[dash % 4], label=student, markersize=3.5,
                marker=MARKERS[places[student] % 6] if len(mean) <= 30 else "",
            )  # fmt: skip
        axes.set_ylabel("training loss" if k == "loss" else label)
        axes.margins(x=0.02)
    panels[-1].set_xlabel("step")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=min(3, len(curves))
    )
    return to_svg(figure, name, f"learning curves of {', '.join(curves)}")


def _xy(values: Mapping[float, float]) -> tuple[list[float], list[float]]:
    return list(values), list(values.values())


@with_style
def score_scatter(points: Sequence[tuple[float, float, bool]], name: str) -> Markup:
    """Teacher's score against student's, relevant documents on top."""
    figure = _figure(3.5)
    axes = figure.add_subplot()
    for relevant, colour, marker, label in (
        (False, SERIES[5], "o", "other"),
        (True, SERIES[1], "D", "judged relevant"),
    ):
        chosen = np.array([(t, s) for t, s, r in points if r == relevant])
        if len(chosen):
            axes.plot(
                *chosen.T, marker, color=colour, alpha=0.75 if relevant else 0.35,
                markersize=3.4, markeredgewidth=0, label=label,
            )  # fmt: skip
    axes.set(xlabel="teacher’s score", ylabel="student’s score")
    axes.legend(loc="upper left", handletextpad=0.1)
    return to_svg(figure, name, f"teacher's against student's score of {len(points)} pairs")


@with_style
def difference_bars(differences: Sequence[float], label: str, name: str) -> Markup:
    """Per-query differences, sorted: the area above zero was won, that below lost."""
    figure = _figure(3.0)
    axes = figure.add_subplot()
    values = np.sort(np.asarray(differences, dtype=float))[::-1]
    edges = np.arange(len(values) + 1)
    for chosen, colour in ((np.maximum(values, 0), SERIES[0]), (np.minimum(values, 0), SERIES[1])):
        axes.stairs(chosen, edges, fill=True, color=colour, linewidth=0)
    axes.axhline(0, color=FAINT, linewidth=0.7)
    axes.set(xlabel="queries, sorted by difference", ylabel=label)
    axes.margins(x=0.01)
    return to_svg(figure, name, f"{label} for each of {len(values)} queries")


@with_style
def reliability_plot(
    bins: Mapping[str, Sequence[Mapping[str, float]]], name: str, order: Sequence[str] = ()
) -> Markup:
    """Observed share of relevant documents against predicted probability, one line per system.

    A system's colour follows from its place in `order`, those not there come after.

    Both axes are logarithmic below a share of 1, because most documents are hardly ever relevant;
    empty bins (nothing relevant, or probability 0) stand at the lower edge.
    """
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.add_subplot()
    shown = [v for b in bins.values() for x in b for v in (x["predicted"], x["observed"]) if v > 0]
    floor = 10.0 ** np.floor(np.log10(min(shown, default=0.1)))
    axes.plot([floor, 1], [floor, 1], color=FAINT, linewidth=0.8, linestyle="--")
    places = {system: i for i, system in enumerate(dict.fromkeys([*order, *bins]))}
    for system, found in bins.items():
        i = places[system]
        pairs = np.array([(b["predicted"], b["observed"]) for b in found])  # (bins, 2)
        axes.plot(
            *np.maximum(pairs, floor).T, color=SERIES[i % 6], marker=MARKERS[i % 6],
            markersize=4.5, linewidth=1.2, label=system,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(floor, 1.15), ylim=(floor, 1.15))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set(xlabel="predicted probability of relevance", ylabel="share judged relevant")
    axes.legend(loc="upper left")
    return to_svg(figure, name, f"reliability of {', '.join(bins)}")


@with_style
def failure_plot(rows: Sequence[Mapping[str, Any]], feature: str, label: str, name: str) -> Markup:
    """Student − teacher in each bin of one feature, with its 95 % interval."""
    figure = Figure(figsize=(WIDTH, 1.1 + 0.35 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(rows))[::-1]
    labels = [f"{bounds(row['from'], row['to'])} ({row['count']})" for row in rows]
    for place, row in zip(places, rows, strict=True):
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=SERIES[0])
        axes.plot([row["difference"]], [place], MARKERS[0], color=SERIES[0], markersize=5)
    axes.axvline(0, color=FAINT, linewidth=0.7)
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    figure.suptitle(feature, fontsize=9.5, x=0.01, ha="left")
    return to_svg(figure, name, f"{label} by {feature}")
