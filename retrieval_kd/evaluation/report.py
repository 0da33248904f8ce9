"""The report: one self-contained HTML page from `ReportData`, by the template `report.html`.

Texts in it come from collections, so from anyone: they are cleaned here, escaped by the template,
and a content security policy allows no script but the page's own and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import jinja2
from markupsafe import Markup

from retrieval_kd.evaluation import figures, formats
from retrieval_kd.evaluation.headline import facts, headline, main_comparison
from retrieval_kd.evaluation.names import readable
from retrieval_kd.evaluation.report_data import ReportData, SystemRow
from retrieval_kd.evaluation.significance import format_p
from retrieval_kd.evaluation.table import TESTS, better_than, letters
from retrieval_kd.files import write_text

LABEL_LIMIT = 48  # characters of a name in tables and pictures
MOST_POINTS = 1_500  # of the scatter plot: each is an element of the page


def write_report(data: ReportData, path: str | Path) -> None:
    """Write the page, atomically.

    Example:
        >>> import tempfile; path = Path(tempfile.mkdtemp()) / "report.html"
        >>> write_report(ReportData("BM25 <alone>", systems=[SystemRow("bm25")]), path)
        >>> "<h1>BM25 &lt;alone&gt;</h1>" in path.read_text()
        True
    """
    write_text(path, render(data))


def render(data: ReportData) -> str:
    """The page as a string."""
    data = formats.clean_all(data)  # a copy
    for row in data.systems:
        row.label = formats.one_line(row.label or row.name, LABEL_LIMIT)
    data.curves = {formats.one_line(data.label(n), LABEL_LIMIT): c for n, c in data.curves.items()}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval_kd.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("score", "signed", "count", "scaled", "number", "duration", "flat", "unbroken"):
        environment.filters[name] = getattr(formats, name)
    environment.filters |= {"readable": readable, "p": format_p, "csp_hash": csp_hash}
    return environment.get_template("report.html").render(
        data=data,
        headline=headline(data),
        facts=facts(data),
        main=main_comparison(data),
        measures=list(dict.fromkeys(m for row in data.systems for m in row.measures)),
        letters=letters([row.name for row in data.systems]),
        better=lambda name, measure: better_than(data.comparisons, name, measure),
        best=lambda row, measure: is_best(data, row, measure),
        spread=spread,
        tests=TESTS,
        figures=list(pictures(data)),
        costs=cost_columns(data.systems),
    )


def csp_hash(script: str) -> Markup:
    """The source expression that allows exactly this script in a content security policy."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return Markup(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")


def spread(row: SystemRow, measure: str) -> float | None:
    """Standard deviation (n − 1) over seeds; None with one."""
    values = row.measures.get(measure, {}).get("per_seed") or []
    return stdev(values) if len(values) > 1 else None


def is_best(data: ReportData, row: SystemRow, measure: str) -> bool:
    means = [formats.score(mean) for r in data.systems if (mean := r.mean(measure)) is not None]
    return bool(means) and formats.score(row.mean(measure)) == max(means)


# field of SystemRow → heading and format of its column
COSTS: dict[str, tuple[str, str]] = {
    "layers": ("Layers", "count"),
    "parameters": ("Parameters", "scaled"),
    "dimensions": ("Dimensions", "count"),
    "document_tokens": ("Max tokens", "count"),
    "queries_per_second": ("Queries/s", "number"),
    "latency_ms_p50": ("p50, ms", "number"),
    "latency_ms_p95": ("p95, ms", "number"),
    "index_bytes": ("Index", "bytes"),
    "bytes_per_document": ("Bytes/doc", "number"),
    "training_seconds": ("Training", "duration"),
}


def cost_columns(systems: Sequence[SystemRow]) -> list[dict[str, Any]]:
    """The columns of which at least one system knows a value: heading, and per system its cell."""
    columns = []
    for name, (heading, form) in COSTS.items():
        values = [getattr(row, name) for row in systems]
        if any(value is not None for value in values):
            write = getattr(formats, form, lambda value: formats.scaled(value, "B"))
            cells = [(value, write(value)) for value in values]
            columns.append({"heading": heading, "cells": cells})
    return columns


def pictures(data: ReportData) -> list[dict[str, Any]]:
    """Heading, picture and caption of every figure that the data allows."""
    found = [*_tradeoffs(data), _curves(data), _scatter(data), _differences(data)]
    return [figure for figure in found if figure is not None]


def _tradeoffs(data: ReportData) -> list[dict[str, Any] | None]:
    measure = readable(data.measure)
    made: list[dict[str, Any] | None] = []
    for field, unit, axis, heading, caption in (
        ("latency_ms_p50", 1.0, "median latency of a query, ms", "Quality and latency",
         "Up is better, left is faster; a system up and to the left of another beats it on both."),
        ("index_bytes", 1e6, "size of the index, MB", "Quality and index size",
         "Up is better, left is smaller."),
    ):  # fmt: skip
        points = [
            (row.label or row.name, getattr(row, field) / unit, mean)
            for row in data.systems
            if getattr(row, field) and (mean := row.mean(data.measure)) is not None
        ]
        if points:
            svg = figures.tradeoff(points, axis, measure, f"figure-{field}")
            caption += " The horizontal axis is logarithmic."
            made.append({"heading": heading, "svg": svg, "caption": caption})
    return made


def _curves(data: ReportData) -> dict[str, Any] | None:
    if not data.curves:
        return None
    keys = [k for curve in data.curves.values() for point in curve for k in point]
    wanted = f"dev_{data.measure}"
    key = wanted if wanted in keys else next((k for k in keys if k.startswith("dev")), wanted)
    label = f"dev {readable(key.removeprefix('dev_'))}"
    order = [row.label for row in data.systems]  # a system has one colour in all pictures
    svg = figures.learning_curves(data.curves, key, label, "figure-curves", order)
    caption = (
        "Training loss, and quality on the development split, by training step. Losses of "
        "different objectives have different scales: compare their course, not their height."
    )
    return svg and {"heading": "Learning curves", "svg": svg, "caption": caption}


def _scatter(data: ReportData) -> dict[str, Any] | None:
    pairs = [p for p in data.scatter if math.isfinite(p[0]) and math.isfinite(p[1])]
    if len(pairs) < 3:
        return None
    from scipy.stats import spearmanr

    rho = float(spearmanr([p[0] for p in pairs], [p[1] for p in pairs]).statistic)
    step = math.ceil(len(pairs) / MOST_POINTS)
    shown = pairs[::step]
    caption = f"Each point is a query and a document; {formats.count(len(shown))} shown"
    caption += f" of {formats.count(len(pairs))}. " if step > 1 else ". "
    if math.isfinite(rho):
        caption += f"Rank correlation (Spearman) over all of them: {rho:.2f}."
    svg = figures.score_scatter(shown, "figure-scatter")
    return {"heading": "What the student learned", "svg": svg, "caption": caption}


def _differences(data: ReportData) -> dict[str, Any] | None:
    if data.main is None:
        return None
    a, b = data.system(data.main.student), data.system(data.main.baseline)
    if a is None or b is None or a is b:
        return None
    of_a, of_b = a.per_query.get(data.measure, {}), b.per_query.get(data.measure, {})
    differences = [of_a[query] - of_b[query] for query in of_a if query in of_b]
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
