"""Pictures of quality, and of quality against cost; drawn as the others are (`figures.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.ticker
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from retrieval_kd.evaluation.report.costs import Facts
from retrieval_kd.evaluation.report.figures import (
    FAINT,
    MARKERS,
    PAPER,
    SERIES,
    WIDTH,
    to_svg,
    with_style,
)

AXES = (  # field of a system's costs, its unit, the axis, the heading
    ("latency_ms_p50", 1.0, "median latency of a query, ms", "Quality and latency"),
    ("index_bytes", 1e6, "size of the index, MB", "Quality and index size"),
    ("parameters", 1e6, "parameters, millions", "Quality and model size"),
)


def trade_offs(
    systems: Sequence[tuple[str, Facts, float | None]], measure: str
) -> list[dict[str, Any]]:
    """A picture of quality against each cost that a system knows: heading, picture, caption.

    Args:
        systems: label, costs and mean of each; its place here is that of its colour.
    """
    found = [_trade_off(systems, measure, *axis) for axis in AXES]
    return [picture for picture in found if picture is not None]


def _trade_off(
    systems: Sequence[tuple[str, Facts, float | None]],
    measure: str,
    field: str,
    unit: float,
    axis: str,
    heading: str,
) -> dict[str, Any] | None:
    points, unknown = [], []
    for place, (label, facts, mean) in enumerate(systems):
        cost = facts.get(field)
        if mean is None:
            continue
        if cost:
            points.append((label, cost / unit, mean, place))
        else:
            unknown.append(label)
    if not points:
        return None
    svg = pareto(points, axis, measure, f"figure-{field}")
    caption = "Up is better, left is cheaper; a hollow mark is beaten on both by a filled one."
    if unknown:
        caption += f" Unknown, so not shown: {', '.join(unknown)}."
    return {"heading": heading, "svg": svg, "caption": caption}


@with_style
def quality_dots(
    systems: Mapping[str, Sequence[float]],
    intervals: Mapping[str, tuple[float, float]],
    measure: str,
    name: str,
) -> Markup:
    """Each system's mean with its interval over queries, and every seed as a small mark.

    Args:
        systems: label → mean of each seed.
        intervals: label → bounds of the mean's 95 % interval, where known.
    """
    figure = Figure(figsize=(WIDTH, 0.75 + 0.36 * len(systems)), layout="constrained")
    axes = figure.add_subplot()
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
    """Quality against a cost on a logarithmic axis: (label, cost, quality, place of its colour).

    A stepped line joins the systems that no other beats on both; the others are hollow.
    """
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = figure.add_subplot()
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
    """Which (cost, quality) pairs no other beats: cheaper and as good, or as cheap and better.

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
    """Put each label beside its point, where it covers no other label or point."""
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
