"""The content of a report as plain data that can be written to JSON and read back.

`page.py` renders it; `explorer.py` makes the explorer's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from retrieval_kd.errors import InputError
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.significance import Comparison

Curve = list[dict[str, float | None]]  # points: {"step": 10, "loss": 0.5, "dev_ndcg@10": None}


@dataclass
class SystemRow:
    """What a system is and costs. Everything optional may be unknown."""

    name: str
    label: str = ""
    description: str = ""
    kind: str = ""  # such as lexical, dense, reranker
    layers: int | None = None
    parameters: int | None = None
    dimensions: int | None = None
    queries_per_second: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p95: float | None = None
    index_bytes: int | None = None
    bytes_per_document: float | None = None
    document_tokens: int | None = None  # maximum length at which documents are encoded
    documents_per_second: float | None = None  # encoded when the index was built
    training_seconds: float | None = None  # one seed
    teacher_calls: int | None = None  # pairs and texts, at most, for the training of one seed


@dataclass
class Explorer:
    """Queries and the top results of every system, for browsing.

    `documents` are (ID, title, snippet); elsewhere their place in that list stands for them. A
    query has `id`, `text`, `judged` as (document, gain), and for each system, in the order of
    `systems`, the measure in `values` and the top results in `top` as (document, score).
    """

    measure: str
    systems: list[str]
    of: int  # queries evaluated; the explorer may hold fewer
    documents: list[tuple[str, str, str]] = field(default_factory=list)
    queries: list[dict[str, Any]] = field(default_factory=list)


class Main(NamedTuple):
    """The names of the systems that the headline is about; teacher may be empty."""

    student: str
    baseline: str
    teacher: str = ""


@dataclass
class ReportData:
    """Everything that a report shows.

    Example:
        >>> data = ReportData("A report", systems=[SystemRow("bm25")], main=Main("bm25", "bm25"))
        >>> ReportData.from_json(data.to_json()) == data
        True
    """

    title: str
    subtitle: str = ""
    # name, documents, queries, splits, digest, drops: list[str]; other keys are shown too
    collection: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)  # from `Evaluation.to_json`
    systems: list[SystemRow] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    curves: dict[str, list[Curve]] = field(default_factory=dict)  # student → one for each seed
    diagnostics: dict[str, Any] | None = None  # from `diagnostics.diagnose`
    audit: dict[str, Any] | None = None  # from `audit.show.audit_summary`
    explorer: Explorer | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # of texts, judgments, models
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # seconds of stages, where a plan exists: {"title", "planned", "took"}
    stages: list[dict[str, Any]] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)  # Evaluation.rules
    main: Main | None = None
    measure: str = "ndcg@10"  # the one that headline and pictures show

    __pydantic_config__ = ConfigDict(extra="forbid")

    def system(self, name: str) -> SystemRow | None:
        return next((row for row in self.systems if row.name == name), None)

    def label(self, name: str) -> str:
        row = self.system(name)
        return row.label or row.name if row else name

    def evaluation(self) -> Evaluation:
        """Return the values of all systems, which may be none."""
        return Evaluation.from_json(self.values) if self.values else Evaluation([], {})

    def mean(self, system: str) -> float | None:
        """Return a system's mean on the main measure; None if it is unknown."""
        evaluation = self.evaluation()
        known = self.measure in evaluation.measures and system in evaluation.systems
        return evaluation.mean(system, self.measure) if known else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ReportData:
        try:
            return TypeAdapter(cls).validate_python(record)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            problem = f"not the data of a report: {where}: {first['msg']}"
            raise InputError(problem, remedy="write it again with `rkd run`") from error
