"""The HTML report: one self-contained page, from `ReportData` and the template `page.html`.

Texts come from collections, so from anyone: they are cleaned here and escaped by the template, and
a content security policy allows no script but the page's own and no request at all.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from statistics import stdev
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.data import ReportData, SystemRow
from retrieval_kd.evaluation.report.explorer import data_block
from retrieval_kd.evaluation.report.pictures import pictures
from retrieval_kd.evaluation.report.sections import (
    facts,
    headline,
    leak_section,
    main_comparison,
    teacher_section,
)
from retrieval_kd.evaluation.report.table import (
    TESTS,
    better_than,
    cost_note,
    known_costs,
    letters,
)
from retrieval_kd.files import write_text
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import format_p

LABEL_LIMIT = 48  # characters of a name in tables and pictures


def write_report(data: ReportData, path: str | Path) -> None:
    """Write the page in one step.

    Example:
        >>> import tempfile; path = Path(tempfile.mkdtemp()) / "report.html"
        >>> write_report(ReportData("BM25 <alone>", systems=[SystemRow("bm25")]), path)
        >>> "<h1>BM25 &lt;alone&gt;</h1>" in path.read_text()
        True
    """
    write_text(path, render(data))


def render(data: ReportData) -> str:
    """Render the page."""
    data = formats.clean_all(data)  # a copy
    for row in data.systems:
        row.label = formats.one_line(row.label or row.name, LABEL_LIMIT)
    data.curves = {formats.one_line(data.label(n), LABEL_LIMIT): c for n, c in data.curves.items()}
    systems = [vars(row) for row in data.systems]
    costs = known_costs(systems)
    return render_template(
        "report/page.html",
        data=data,
        script=own_file("report/script.js"),
        headline=headline(data),
        facts=facts(data),
        main=main_comparison(data),
        measures=list(dict.fromkeys(m for row in data.systems for m in row.measures)),
        letters=letters([row.name for row in data.systems]),
        better=lambda name, measure: better_than(data.comparisons, name, measure),
        best=lambda row, measure: _is_best(data, row, measure),
        spread=_spread,
        tests=TESTS,
        pictures=pictures(data),
        costs=costs,
        costs_note=cost_note(costs),
        shape=_shape,
        explorer=_explorer_block(data),
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
    for filter_ in ("score", "signed", "count", "scaled", "number", "duration", "flat", "unbroken"):
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


def _spread(row: SystemRow, measure: str) -> float | None:
    """Standard deviation (n − 1) over seeds; None with one seed."""
    values = row.measures.get(measure, {}).get("per_seed") or []
    return stdev(values) if len(values) > 1 else None


def _is_best(data: ReportData, row: SystemRow, measure: str) -> bool:
    means = [formats.score(mean) for r in data.systems if (mean := r.mean(measure)) is not None]
    return bool(means) and formats.score(row.mean(measure)) == max(means)


def _shape(row: SystemRow) -> str:
    """A model's layers, dimensions and length of documents."""
    parts = (
        (row.layers, "layers"),
        (row.dimensions, "dimensions"),
        (row.document_tokens, "tokens at most"),
    )
    return ", ".join(f"{formats.count(value)} {what}" for value, what in parts if value is not None)


def _explorer_block(data: ReportData) -> Markup | None:
    """The explorer's data, with the systems of the main comparison chosen."""
    explorer = data.explorer
    if explorer is None or not explorer.queries:
        return None
    numbers = {name: number for number, name in enumerate(explorer.systems)}
    last = len(numbers) - 1
    pair = (last, 0)
    if data.main is not None:
        pair = (numbers.get(data.main.student, last), numbers.get(data.main.baseline, 0))
    return data_block(explorer, [data.label(name) for name in explorer.systems], pair)
