"""The report's section on teacher and students, from a record of `diagnostics`."""

from __future__ import annotations

import math
from typing import Any

from retrieval_kd.evaluation.diagnostics.failures import bounds
from retrieval_kd.evaluation.diagnostics.fidelity import MEASURES
from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.data import ReportData
from retrieval_kd.metrics.names import readable

WORST = 8


def teacher_section(data: ReportData) -> dict[str, Any] | None:
    """Prepare what the template shows; None without a record."""
    record = data.diagnostics
    if record is None:
        return None
    students = list(record["students"].values())
    first = students[0]
    return {
        "measure": readable(record["measure"]),
        "queries": record["queries"],
        "seed": record.get("seed"),
        "columns": _columns(record, first["loyalty"]["k"]),
        "systems": [
            {"name": data.label(s["name"]), "values": _values(s)}
            for s in (record["teacher"], *students)
        ],
        "student": data.label(first["name"]),
        "failures": failure_groups(first["failures"]),
        "worst": first["worst"][:WORST],
        "negatives": _negatives(record.get("negatives")),
    }


def _columns(record: dict[str, Any], k: int) -> list[tuple[str, str]]:
    """List heading and meaning of each column."""
    return [
        (readable(record["measure"]), ""),
        ("top 1", "share of queries whose first document is the teacher’s first"),
        (f"top {k}", f"share of the teacher’s first {k} documents among the first {k}"),
        (f"relevant@{k}", f"share of relevant documents on which both agree: both have them among "
         f"the first {k}, or neither"),
        ("probability", "1 − Jensen–Shannon distance of the two score distributions of a query"),
        ("τ", "Kendall’s rank correlation of the scores"),
        ("RBO", "rank-biased overlap, in which first ranks count most"),
        ("ECE", "expected calibration error: lower is better"),
        ("skill", "Brier skill: 0 for always predicting the base rate, 1 for perfect predictions"),
    ]  # fmt: skip


def _values(system: dict[str, Any]) -> list[float | None]:
    means = system.get("loyalty", {}).get("mean", {})
    fit = system.get("calibration") or {}
    return [system["mean"], *map(means.get, MEASURES), fit.get("ece"), fit.get("skill")]


def failure_groups(tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """List each feature with its bins; differences and intervals are places on one line (%).

    Example:
        >>> row = {"from": 1, "to": 3, "count": 2, "teacher": 0.5, "student": 0.4,
        ...        "difference": -0.1, "low": -0.2, "high": 0.0, "failed": 1}
        >>> [group] = failure_groups({"words": [row]})
        >>> shown = group["rows"][0]
        >>> shown["range"], shown["at"], shown["low_at"], shown["high_at"]
        ('1–3', 25.0, 0.0, 50.0)
    """
    rows = [row for bins in tables.values() for row in bins]
    values = [
        abs(row[k]) for row in rows for k in ("difference", "low", "high") if row[k] is not None
    ]
    limit = math.ceil(10 * max(values, default=0.1) - 1e-9) / 10 or 0.1

    def place(value: float | None) -> float | None:
        return None if value is None else round(50 + 50 * value / limit, 1)

    return [
        {
            "feature": feature,
            "limit": limit,
            "rows": [
                {
                    **row,
                    "range": bounds(row["from"], row["to"]),
                    "at": place(row["difference"]),
                    "low_at": place(row["low"]),
                    "high_at": place(row["high"]),
                }
                for row in bins
            ],
        }
        for feature, bins in tables.items()
        if bins
    ]


def _negatives(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """How many training negatives the teacher scores above the positive."""
    if record is None:
        return None
    if "unknown" in record:
        return {"sentence": f"Unknown: {record['unknown']}.", "depths": []}
    sentence = (
        f"Of {formats.count(record['negatives'])} training negatives of "
        f"{formats.count(record['queries'])} queries the teacher scores "
        f"{record['above_best']:.1%} above the query’s best positive, and "
        f"{record['above_quantile']['0.5']:.1%} above the median positive of all queries. This "
        "shows how often teacher and labels disagree: some of these are relevant but not judged, "
        "some are errors of the teacher."
    )
    return {"sentence": sentence, "depths": record["by_depth"]}
