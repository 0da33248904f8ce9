"""The report: one self-contained HTML page from `ReportData`, by the template `report_page.html`.

Texts in it come from collections, so from anyone: they are cleaned here, escaped by the template,
and a content security policy allows no script but the page's own and no request at all. Pictures
are chosen in `report_pictures.py`; the sections on teacher and leakage are in `report_teacher.py`
and `report_leaks.py`, the explorer's data in `report_explorer.py`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from statistics import stdev
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.costs import known, note
from retrieval_kd.evaluation.report.data import ReportData, SystemRow
from retrieval_kd.evaluation.report.explorer import data_block
from retrieval_kd.evaluation.report.fidelity import teacher_section
from retrieval_kd.evaluation.report.headline import facts, headline, main_comparison
from retrieval_kd.evaluation.report.leakage import leak_section
from retrieval_kd.evaluation.report.pictures import pictures
from retrieval_kd.evaluation.report.table import TESTS, better_than, letters
from retrieval_kd.files import write_text
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import format_p

LABEL_LIMIT = 48  # characters of a name in tables and pictures


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
    return environment.get_template("report/page.html").render(
        data=data,
        script=own_file("report/script.js"),
        style=own_file("report/style.css"),
        headline=headline(data),
        facts=facts(data),
        main=main_comparison(data),
        measures=list(dict.fromkeys(m for row in data.systems for m in row.measures)),
        letters=letters([row.name for row in data.systems]),
        better=lambda name, measure: better_than(data.comparisons, name, measure),
        best=lambda row, measure: is_best(data, row, measure),
        spread=spread,
        tests=TESTS,
        pictures=pictures(data),
        costs=cost_columns(data.systems),
        costs_note=note(known(map(vars, data.systems))),
        shape=shape,
        explorer=explorer_block(data),
        teacher=teacher_section(data),
        leaks=leak_section(data),
        configuration=configuration(data.settings),
    )


def own_file(name: str) -> Markup:
    """A file of this package, whose text is ours and needs no escaping."""
    return Markup(resources.files("retrieval_kd.evaluation").joinpath(name).read_text("utf-8"))


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


def cost_columns(systems: Sequence[SystemRow]) -> list[dict[str, Any]]:
    """The columns of which at least one system knows a value: heading, and per system its cell."""
    facts = [vars(row) for row in systems]
    return [
        {
            "heading": cost.heading,
            "meaning": cost.meaning,
            "cells": [(paid[cost.field], cost.write(paid[cost.field])) for paid in facts],
        }
        for cost in known(facts)
    ]


def shape(row: SystemRow) -> str:
    """A model's form in words: layers, dimensions, length of documents."""
    parts = (
        (row.layers, "layers"),
        (row.dimensions, "dimensions"),
        (row.document_tokens, "tokens at most"),
    )
    return ", ".join(f"{formats.count(value)} {what}" for value, what in parts if value is not None)


def explorer_block(data: ReportData) -> Markup | None:
    """The explorer's data for the page, with the main comparison's systems chosen."""
    explorer = data.explorer
    if explorer is None or not explorer.queries:
        return None
    labels = [data.label(name) for name in explorer.systems]
    known = {name: place for place, name in enumerate(explorer.systems)}
    last = len(labels) - 1
    pair = (last, 0)
    if data.main is not None:
        pair = (known.get(data.main.student, last), known.get(data.main.baseline, 0))
    return data_block(explorer, labels, pair)


def configuration(settings: dict[str, Any]) -> str:
    """The settings as YAML, which `rkd run` reads again."""
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True) if settings else ""
