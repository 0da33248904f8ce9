"""The HTML report: one self-contained page, from `ReportData` and the template `page.html`.

The table of systems is `table.to_grid`, the same as in a terminal, Markdown and LaTeX; the macro
`table` of `macros.html` renders it, here and on a suite's page.

Texts come from collections, so from anyone: they are cleaned here and escaped by the template, and
a content security policy allows no script but the page's own and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.data import ReportData
from retrieval_kd.evaluation.report.explorer import data_block, won_and_lost
from retrieval_kd.evaluation.report.grid import Cell, Grid
from retrieval_kd.evaluation.report.pictures import pictures
from retrieval_kd.evaluation.report.plan import plan_grid
from retrieval_kd.evaluation.report.sections import (
    facts,
    headline,
    leak_section,
    main_comparison,
    teacher_section,
)
from retrieval_kd.evaluation.report.table import Clean, known_costs, to_grid
from retrieval_kd.files import write_text
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import format_p

LABEL_LIMIT = 48  # characters of a name in tables and pictures


def write_report(data: ReportData, path: str | Path) -> None:
    """Write the page in one step.

    Example:
        >>> import tempfile; path = Path(tempfile.mkdtemp()) / "report.html"
        >>> write_report(ReportData("BM25 <alone>"), path)
        >>> "<h1>BM25 &lt;alone&gt;</h1>" in path.read_text()
        True
    """
    write_text(path, render(data))


def render(data: ReportData) -> str:
    """Render the page."""
    data = formats.clean_all(data)  # a copy
    for row in data.systems:
        row.label = formats.one_line(row.label or row.name, LABEL_LIMIT)
    explorer = data.explorer if data.explorer and data.explorer.queries else None
    names = [data.label(name) for name in explorer.systems] if explorer else []
    pair = _compared(data)
    data.curves = {formats.one_line(data.label(n), LABEL_LIMIT): c for n, c in data.curves.items()}
    return render_template(
        "report/page.html",
        data=data,
        script=own_file("report/script.js"),
        headline=headline(data),
        facts=facts(data),
        main=main_comparison(data),
        systems=_systems_grid(data),
        costs=known_costs(map(vars, data.systems)),
        pictures=pictures(data),
        explorer=explorer and data_block(explorer, names, pair),
        cases=won_and_lost(explorer, pair) if explorer and data.main else [],
        compared=[names[number] for number in pair] if explorer else [],
        stages=plan_grid(data.stages),
        teacher=teacher_section(data),
        leaks=leak_section(data),
        # as YAML, which `rkd run` can read
        configuration=data.settings
        and yaml.safe_dump(data.settings, sort_keys=False, allow_unicode=True),
    )


def render_template(name: str, **values: Any) -> str:
    """Render a template of this package, with the page's style and the filters of `formats`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval_kd.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in ("score", "signed", "count", "number", "duration", "flat", "unbroken"):
        environment.filters[filter_] = getattr(formats, filter_)
    environment.filters |= {
        "readable": readable,
        "p": format_p,
        "csp_hash": csp_hash,
        "line": lambda text, limit=200: formats.one_line(str(text), limit),
    }
    return environment.get_template(name).render(style=own_file("report/style.css"), **values)


def own_file(name: str) -> Markup:
    """Read a file of this package; its text is ours and needs no escaping."""
    return Markup(resources.files("retrieval_kd.evaluation").joinpath(name).read_text("utf-8"))


def csp_hash(script: str) -> Markup:
    """Write the expression that allows exactly this script in a content security policy."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return Markup(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")


def _systems_grid(data: ReportData) -> Grid | None:
    """Tabulate the systems with their labels and descriptions; None without any measure."""
    evaluation = data.evaluation()
    if not evaluation.measures or not data.systems:
        return None
    facts = {row.name: vars(row) for row in data.systems}
    clean = Clean.of(data.audit, data.settings)
    grid = to_grid(evaluation, data.comparisons, facts, digits=3, clean=clean)
    rows = []
    for letter, name, *values in grid.rows:
        system = facts[name.text]
        details = (system["description"] or system["kind"], _shape(system))
        shown = Cell(system["label"], details=[text for text in details if text])
        rows.append([letter, shown, *values])
    return replace(grid, rows=rows)


def _shape(system: Mapping[str, Any]) -> str:
    """A model's layers, dimensions and length of documents."""
    parts = (
        (system["layers"], "layers"),
        (system["dimensions"], "dimensions"),
        (system["document_tokens"], "tokens at most"),
    )
    return ", ".join(f"{formats.count(value)} {what}" for value, what in parts if value is not None)


def _compared(data: ReportData) -> tuple[int, int]:
    """Numbers of the explorer's two systems that are compared at first: those of the headline."""
    numbers = {
        name: number for number, name in enumerate(data.explorer.systems if data.explorer else ())
    }
    student, baseline = (data.main.student, data.main.baseline) if data.main else ("", "")
    return numbers.get(student, len(numbers) - 1), numbers.get(baseline, 0)
