"""Pictures of quality against cost, with the systems that no other beats on both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.ticker
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from retrieval_kd.evaluation.report.svg import (
    FAINT,
    MARKERS,
    PAPER,
    SERIES,
    new_axes,
    to_svg,
    with_style,
)
from retrieval_kd.evaluation.report.table import Facts

AXES = (  # field of a system's costs, its unit, the axis, the heading
    ("latency_ms_p50", 1.0, "median latency of a query, ms", "Quality and latency"),
    ("index_bytes", 1e6, "size of the index, MB", "Quality and index size"),
    ("parameters", 1e6, "parameters, millions", "Quality and model size"),
)
Picture = dict[str, Any]  # heading, svg, caption


def trade_offs(systems: Sequence[tuple[str, Facts, float | None]], measure: str) -> list[Picture]:
    """Show quality against each cost that is known for at least one system."""
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
        svg = pareto(points, axis, measure, f"figure-{field}")
        shown.append({"heading": heading, "svg": svg, "caption": caption})
    return shown


@with_style
def pareto(points: Sequence[tuple[str, float, float, int]], x: str, y: str, name: str) -> Markup:
    """Plot quality against a cost on a logarithmic axis.

    A stepped line joins the systems that no other system beats on both; the others are hollow.

    Args:
        points: (label, cost, quality, number of its colour) of each system.
    """
    figure, axes = new_axes(3.3)
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
