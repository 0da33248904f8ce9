"""The report's pictures: matplotlib, as inline SVG whose colours are the page's CSS variables.

So one picture serves the light and the dark page, and its text is text in the page's font.
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


@with_style
def tradeoff(points: Sequence[tuple[str, float, float]], x: str, y: str, name: str) -> Markup:
    """Quality against a cost: (label, cost, quality), the cost on a logarithmic axis."""
    figure = _figure(3.3)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    for i, (_, cost, quality) in enumerate(points):
        axes.plot([cost], [quality], color=SERIES[i % 6], marker=MARKERS[i % 6], markersize=7)
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
    _label(figure, axes, points)
    return to_svg(figure, name, f"{y} against {x} of {len(points)} systems")


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
            (7, -3, "left"), (-7, -3, "right"), (0, 8, "center"), (0, -15, "center"),
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


def _points(
    curve: Sequence[Mapping[str, float | None]], key: str
) -> tuple[list[float], list[float]]:
    pairs = [(p.get("step"), p.get(key)) for p in curve]
    known = [(s, v) for s, v in pairs if s is not None and v is not None and math.isfinite(v)]
    return [s for s, _ in known], [v for _, v in known]


@with_style
def learning_curves(
    curves: Mapping[str, Sequence[Mapping[str, float | None]]],
    key: str,
    label: str,
    name: str,
    order: Sequence[str] = (),
) -> Markup | None:
    """Loss and development quality by step, one line per student; None without any point.

    A student's colour follows from its place in `order`, those not there come after.
    """
    places = {student: i for i, student in enumerate(dict.fromkeys([*order, *curves]))}
    keys = [k for k in ("loss", key) if any(_points(curve, k)[0] for curve in curves.values())]
    if not keys:
        return None
    figure = _figure(0.9 + 1.5 * len(keys))
    panels = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    for axes, k in zip(panels, keys, strict=True):
        for dash, (student, curve) in enumerate(curves.items()):
            i = places[student]
            steps, values = _points(curve, k)
            marker = MARKERS[i % 6] if len(steps) <= 30 else ""
            axes.plot(
                steps, values, color=SERIES[i % 6], linestyle=DASHES[dash % 4], marker=marker,
                markersize=3.5, label=student,
            )  # fmt: skip
        axes.set_ylabel("training loss" if k == "loss" else label)
        axes.margins(x=0.02)
    panels[-1].set_xlabel("step")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=min(3, len(curves))
    )
    return to_svg(figure, name, f"learning curves of {', '.join(curves)}")


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
