"""The report's pictures, drawn by matplotlib as inline SVG in the colours of the page.

Colours become CSS variables, so that one picture serves the light and the dark page; text stays
text, in the page's font. `pictures.py` decides which of them a report shows.
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
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from retrieval_kd.evaluation.report.data import Curve

# placeholder colours, each replaced by a CSS variable of the page
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
    """Turn a figure into an element of an HTML page: no fixed size, no URL, no ID used twice."""
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
    return Markup(head + svg)  # matplotlib has escaped all texts


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def with_style(draw: Any) -> Any:
    """Run a drawing function under `STYLE`, leaving the user's matplotlib settings alone."""

    def styled(*args: Any, **options: Any) -> Markup:
        with (
            warnings.catch_warnings(),
            matplotlib.rc_context({**STYLE, "svg.hashsalt": draw.__name__}),
        ):
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's fonts have them
            return draw(*args, **options)

    styled.__doc__ = draw.__doc__
    return styled


def _points(curve: Curve, key: str) -> dict[float, float]:
    """Map step → finite value."""
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
    """Draw loss and development quality by step; return None if there is no point.

    One line per student shows the mean over its seeds at the steps that all seeds have; each seed
    is a thin line behind it. A student's colour depends on its place in `order`.
    """
    places = {student: i for i, student in enumerate(dict.fromkeys([*order, *curves]))}
    every = [curve for student_curves in curves.values() for curve in student_curves]
    keys = [k for k in ("loss", key) if any(_points(curve, k) for curve in every)]
    if not keys:
        return None
    figure = Figure(figsize=(WIDTH, 0.9 + 1.5 * len(keys)), layout="constrained")
    panels = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    for axes, k in zip(panels, keys, strict=True):
        for dash, (student, student_curves) in enumerate(curves.items()):
            colour, seeds = SERIES[places[student] % 6], [_points(c, k) for c in student_curves]
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
    """Plot the student's score against the teacher's, relevant documents on top."""
    figure, axes = _axes(3.5)
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
    """Draw per-query differences, sorted: the area above zero was won, that below was lost."""
    figure, axes = _axes(3.0)
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
    """Plot the observed share of relevant documents against the predicted probability.

    One line per system; its colour depends on its place in `order`. Both axes are logarithmic,
    because few documents are relevant; zeros are drawn at the lower edge.
    """
    figure, axes = _axes(3.5)
    shown = [v for b in bins.values() for x in b for v in (x["predicted"], x["observed"]) if v > 0]
    floor = 10.0 ** np.floor(np.log10(min(shown, default=0.1)))
    axes.plot([floor, 1], [floor, 1], color=FAINT, linewidth=0.8, linestyle="--")
    places = {system: i for i, system in enumerate(dict.fromkeys([*order, *bins]))}
    for system, rows in bins.items():
        i = places[system]
        pairs = np.array([(b["predicted"], b["observed"]) for b in rows])  # (bins, 2)
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
def quality_dots(
    systems: Mapping[str, Sequence[float]],
    intervals: Mapping[str, tuple[float, float]],
    measure: str,
    name: str,
) -> Markup:
    """Draw each system's mean with its interval over queries, and every seed as a small mark.

    Args:
        systems: label → mean of each seed.
        intervals: label → bounds of the mean's 95 % interval, if known.
    """
    figure, axes = _axes(0.75 + 0.36 * len(systems))
    places = np.arange(len(systems))[::-1]
    for i, (place, (label, seeds)) in enumerate(zip(places, systems.items(), strict=True)):
        colour, mean = SERIES[i % 6], float(np.mean(seeds))
        if label in intervals:
            axes.plot(intervals[label], [place, place], color=colour, linewidth=1.4)
        if len(seeds) > 1:
            below = [place - 0.26] * len(seeds)
            axes.plot(seeds, below, "|", color=colour, markersize=5, markeredgewidth=1)
        axes.plot([mean], [place], MARKERS[i % 6], color=colour, markersize=6.5)
    axes.set_yticks(places, list(systems))
    axes.set_ylim(-0.7, len(systems) - 0.4)
    axes.set_xlabel(measure)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return to_svg(figure, name, f"{measure} of {len(systems)} systems")


@with_style
def pareto(points: Sequence[tuple[str, float, float, int]], x: str, y: str, name: str) -> Markup:
    """Plot quality against a cost on a logarithmic axis.

    A stepped line joins the systems that no other system beats on both; the others are hollow.

    Args:
        points: (label, cost, quality, number of its colour) of each system.
    """
    figure, axes = _axes(3.3)
    axes.set_xscale("log")
    front = undominated([(cost, quality) for _, cost, quality, _ in points])
    best = sorted(points[i][1:3] for i in front)
    if len(best) > 1:
        axes.step(*zip(*best, strict=True), where="post", color=FAINT, linewidth=1, linestyle="--")
    for i, (_, cost, quality, place) in enumerate(points):
        colour = SERIES[place % 6]
        axes.plot(
            [cost], [quality], color=colour, marker=MARKERS[place % 6], markersize=7,
            markerfacecolor=colour if i in front else PAPER,
        )  # fmt: skip
    axes.margins(x=0.18, y=0.16)
    low, high = axes.get_xlim()
    if high / low < 12:  # a logarithmic axis needs a decade to have labelled ticks
        middle = math.sqrt(low * high)
        axes.set_xlim(middle / 4, middle * 4)
    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set(xlabel=x, ylabel=y)
    _label(figure, axes, [point[:3] for point in points])
    return to_svg(figure, name, f"{y} against {x} of {len(points)} systems")


def undominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the numbers of the (cost, quality) pairs that no other pair beats.

    A pair beats another if it is cheaper and as good, or as cheap and better.

    Example:
        >>> undominated([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9), (3.0, 0.8)])
        [0, 2]
    """
    return [
        i
        for i, (cost, quality) in enumerate(points)
        if not any((c <= cost and q >= quality) and (c < cost or q > quality) for c, q in points)
    ]


def _label(figure: Figure, axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Put each label beside its point, where it overlaps no other label or point if possible."""
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    marks = [axes.transData.transform((cost, quality)) for _, cost, quality in points]
    taken = [Bbox.from_bounds(px - 5, py - 5, 10, 10) for px, py in marks]
    frame = figure.bbox
    for label, cost, quality in points:
        best: tuple[float, Any, Bbox] | None = None
        for dx, dy, side in (
            (7, 4, "left"), (-7, 4, "right"), (0, 8, "center"), (0, -15, "center"),
            (7, 8, "left"), (7, -14, "left"), (-7, 8, "right"), (-7, -14, "right"),
            (7, 19, "left"), (7, -25, "left"), (-7, 19, "right"), (-7, -25, "right"),
        ):  # fmt: skip
            text = axes.annotate(
                label, (cost, quality), (dx, dy), textcoords="offset points", ha=side, fontsize=9
            )
            text.set_in_layout(False)
            area = text.get_window_extent(renderer)
            cost_here = sum(area.overlaps(other) for other in taken)
            cost_here += 2 * (area.x0 < axes.bbox.x0 or area.x1 > frame.x1)
            cost_here += 2 * (area.y0 < axes.bbox.y0 or area.y1 > frame.y1)
            if best is None or cost_here < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost_here, text, area)
            else:
                text.remove()
            if cost_here == 0:
                break
        if best is not None:
            taken.append(best[2])
