"""The report's section on teacher and students: a `diagnostics` record as rows and sentences."""

from __future__ import annotations

import math
from typing import Any

from retrieval_kd.evaluation.diagnostics.failures import bounds
from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.data import ReportData
from retrieval_kd.metrics.names import readable

WORST = 8


def teacher_section(data: ReportData) -> dict[str, Any] | None:
    """What the template shows, or None without a record."""
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
        "negatives": negatives_section(record.get("negatives")),
    }


def _columns(record: dict[str, Any], k: int) -> list[tuple[str, str]]:
    """Heading and meaning of each column."""
    return [
        (readable(record["measure"]), ""),
        ("top 1", "share of queries whose first document is the teacher’s first"),
        (f"top {k}", f"share of the teacher’s first {k} documents among the first {k}"),
        (f"relevant@{k}", f"share of relevant documents that both have among the first {k}, or "
         "both have not"),
        ("probability", "1 − Jensen–Shannon distance of the two score distributions of a query"),
        ("τ", "Kendall’s rank correlation of the scores"),
        ("RBO", "rank-biased overlap, first ranks first"),
        ("ECE", "expected calibration error: lower is better"),
        ("skill", "Brier skill: 0 for always saying the base rate, 1 for certainty"),
    ]  # fmt: skip


def _values(system: dict[str, Any]) -> list[float | None]:
    means = system.get("loyalty", {}).get("mean", {})
    fit = system.get("calibration") or {}
    loyal = ("top_1", "top_k", "relevant", "probability", "kendall", "rbo")
    return [system["mean"], *(means.get(name) for name in loyal), fit.get("ece"), fit.get("skill")]


def failure_groups(tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each feature with its bins; differences and intervals as places on one common line (%).

    Example:
        >>> row = {"from": 1, "to": 3, "count": 2, "teacher": 0.5, "student": 0.4,
        ...        "difference": -0.1, "low": -0.2, "high": 0.0, "failed": 1}
        >>> [group] = failure_groups({"words": [row]})
        >>> shown = group["rows"][0]
        >>> shown["range"], shown["at"], shown["low_at"], shown["high_at"]
        ('1–3', 25.0, 0.0, 50.0)
    """
    rows = [row for bins in tables.values() for row in bins]
    seen = [
        abs(row[k]) for row in rows for k in ("difference", "low", "high") if row[k] is not None
    ]
    limit = math.ceil(10 * max(seen, default=0.1) - 1e-9) / 10 or 0.1

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


def negatives_section(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """How many training negatives the teacher puts above the positive: sentence and depths."""
    if record is None:
        return None
    if "unknown" in record:
        return {"sentence": f"Not known: {record['unknown']}.", "depths": []}
    sentence = (
        f"Of {formats.count(record['negatives'])} training negatives of "
        f"{formats.count(record['queries'])} queries the teacher puts {record['above_best']:.1%} "
        f"above the query’s best positive, and {record['above_quantile']['0.5']:.1%} above the "
        "median positive of all queries. It says how often teacher and labels disagree: some of "
        "these are relevant without a judgment, some are the teacher’s error."
    )
    depths = [
        {
            "depth": row["depth"],
            "negatives": row["negatives"],
            "share": row["above_best"],
        }
        for row in record["by_depth"]
    ]
    return {"sentence": sentence, "depths": depths}
