"""Matplotlib figures as inline SVG in the colours of the page.

Colours become CSS variables, so that one picture serves the light and the dark page; text stays
text, in the page's font.
"""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def as_file(svg: str) -> str:
    """Turn a picture of a page into a file of its own, with the page's colours."""
    css = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    colours = css[: css.index("* {")]
    own = "svg { background: var(--paper); font-family: system-ui, sans-serif; }"
    head, _, rest = svg.partition(">")
    rest = rest.replace("xlink:href", "href")  # whose prefix only a page knows
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{colours}{own}</style>{rest}'


def new_axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def with_style(draw: Any) -> Any:
    """Run a drawing function under `STYLE`, leaving the user's matplotlib settings alone."""

    def styled(*args: Any, **options: Any) -> Any:
        with (
            warnings.catch_warnings(),
            matplotlib.rc_context({**STYLE, "svg.hashsalt": draw.__name__}),
        ):
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's fonts have them
            return draw(*args, **options)

    styled.__doc__ = draw.__doc__
    return styled
