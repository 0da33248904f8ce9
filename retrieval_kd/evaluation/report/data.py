"""What a report shows, as plain data that goes to JSON and back; how it looks is in `report.py`.

The explorer's own data are in `report_explorer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.diagnostics.cases import QueryCase, Relevant, Returned
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.significance import Comparison

Curve = list[dict[str, float | None]]  # points: {"step": 10, "loss": 0.5, "dev_ndcg@10": None}


@dataclass
class SystemRow:
    """A system: what it scores and what it costs. Everything optional may be unknown."""

    name: str
    label: str = ""
    description: str = ""
    kind: str = ""  # such as lexical, dense, reranker
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)  # → {"mean", "per_seed"}
    per_query: dict[str, dict[str, float]] = field(default_factory=dict)  # averaged over seeds
    layers: int | None = None
    parameters: int | None = None
    dimensions: int | None = None
    queries_per_second: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p95: float | None = None
    index_bytes: int | None = None
    bytes_per_document: float | None = None
    document_tokens: int | None = None  # maximum length at which documents are encoded
    documents_per_second: float | None = None  # encoded when the index was made
    training_seconds: float | None = None  # one seed
    teacher_calls: int | None = None  # pairs and texts, at most, for the training of one seed

    @classmethod
    def of(cls, evaluation: Evaluation, name: str, **facts: Any) -> SystemRow:
        """The row of one system of an evaluation, with `label=`, `layers=`, … as known."""
        measures = {
            measure: {
                "mean": evaluation.mean(name, measure),
                "per_seed": evaluation.per_seed(name, measure),
            }
            for measure in evaluation.measures
        }
        return cls(name, measures=measures, per_query=evaluation.per_query[name], **facts)

    def mean(self, measure: str) -> float | None:
        return self.measures.get(measure, {}).get("mean")


@dataclass
class Explorer:
    """Queries with what every system returned, for looking around in; made in `report_explorer.py`.

    `documents` are (ID, title, snippet), and named by their place in that list. Of a query:
    `id`, `text`, `judged` as (document, gain), `values` of the measure by system and `top` by
    system as (document, score), where a system's place is that in `systems`.
    """

    measure: str
    systems: list[str]
    of: int  # queries evaluated; those here may be fewer
    documents: list[tuple[str, str, str]] = field(default_factory=list)
    queries: list[dict[str, Any]] = field(default_factory=list)


class Main(NamedTuple):
    """The names of the systems that the headline is about; teacher may be empty."""

    student: str
    baseline: str
    teacher: str = ""


@dataclass
class ReportData:
    """All that `write_report` shows.

    Example:
        >>> data = ReportData("A report", systems=[SystemRow("bm25")], main=Main("bm25", "bm25"))
        >>> ReportData.from_json(data.to_json()) == data
        True
    """

    title: str
    subtitle: str = ""
    # name, documents, queries, splits, digest, drops: list[str]; other keys are shown too
    collection: dict[str, Any] = field(default_factory=dict)
    systems: list[SystemRow] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    curves: dict[str, list[Curve]] = field(default_factory=dict)  # student → one for each seed
    scatter: list[tuple[float, float, bool]] = field(default_factory=list)  # teacher, student, rel.
    diagnostics: dict[str, Any] | None = None  # of `diagnostics.diagnostics`
    audit: dict[str, Any] | None = None  # of `audit.show.audit_summary`
    cases: list[QueryCase] = field(default_factory=list)
    explorer: Explorer | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of texts, judgments, models
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)  # Evaluation.rules
    main: Main | None = None
    measure: str = "ndcg@10"  # the one that headline and pictures show

    def system(self, name: str) -> SystemRow | None:
        return next((row for row in self.systems if row.name == name), None)

    def label(self, name: str) -> str:
        row = self.system(name)
        return row.label or row.name if row else name

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ReportData:
        values = dict(record)
        try:
            values["systems"] = [SystemRow(**row) for row in values.get("systems", [])]
            values["comparisons"] = [Comparison(**c) for c in values.get("comparisons", [])]
            values["scatter"] = [(t, s, bool(r)) for t, s, r in values.get("scatter", [])]
            values["curves"] = {n: _per_seed(c) for n, c in values.get("curves", {}).items()}
            values["cases"] = [_case(case) for case in values.get("cases", [])]
            values["explorer"] = _explorer(values.get("explorer"))
            values["main"] = Main(*values["main"]) if values.get("main") else None
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise InputError(f"not the data of a report: {error}") from error


def _per_seed(curves: Any) -> list[Curve]:
    """Of a student's curves; reports once had that of the first seed only."""
    return [curves] if curves and isinstance(curves[0], dict) else curves


def _explorer(record: Mapping[str, Any] | None) -> Explorer | None:
    if record is None:
        return None
    explorer = Explorer(**record)
    explorer.documents = [(id, title, snippet) for id, title, snippet in explorer.documents]
    return explorer


def _case(record: Mapping[str, Any]) -> QueryCase:
    case = QueryCase(**record)
    case.relevant = [Relevant(*x) for x in case.relevant]
    case.a_top = [Returned(*x) for x in case.a_top]
    case.b_top = [Returned(*x) for x in case.b_top]
    return case
