"""The sections of the report, as data for the template.

The headline says what the student gains, keeps and costs. Then come the teacher and its students,
from a record of `diagnostics`, and leakage, from an `audit_summary`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from retrieval_kd.evaluation.diagnostics.failures import bounds
from retrieval_kd.evaluation.diagnostics.fidelity import MEASURES
from retrieval_kd.evaluation.report.data import ReportData, SystemRow
from retrieval_kd.evaluation.report.formats import count, score, signed
from retrieval_kd.evaluation.report.grid import Cell, Grid
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison, format_p


def main_comparison(data: ReportData) -> Comparison | None:
    """Return the test of student − baseline on the main measure."""
    if data.main is None:
        return None
    wanted = (data.measure, data.main.student, data.main.baseline)
    return next((c for c in data.comparisons if (c.measure, c.a, c.b) == wanted), None)


def headline(data: ReportData) -> list[str]:
    """Write the finding, then what the student keeps of the teacher and at what cost."""
    if data.main is None:
        return []
    student, teacher = data.system(data.main.student), data.system(data.main.teacher)
    comparison = main_comparison(data)
    sentences = [] if comparison is None else [_finding(data, comparison)]
    if student and teacher and student is not teacher:
        sentences.append(_kept(data, student, teacher))
    return [sentence for sentence in sentences if sentence]


def _finding(data: ReportData, c: Comparison) -> str:
    a, b = data.label(c.a), data.label(c.b)
    interval = f"95% CI {signed(c.low)} to {signed(c.high)}, {c.p_text}"
    measure = readable(c.measure)
    if not c.significant():
        return (
            f"{a} reaches {measure} {c.mean_a:.3f}, {b} {c.mean_b:.3f}: no significant difference "
            f"on {c.queries} queries ({signed(c.difference)}, {interval})."
        )
    side = "above" if c.difference > 0 else "below"
    return (
        f"{a} reaches {measure} {c.mean_a:.3f}, {abs(c.difference):.3f} {side} {b} ({interval}, "
        f"{c.queries} queries)."
    )


def _kept(data: ReportData, student: SystemRow, teacher: SystemRow) -> str:
    """The share of the teacher's quality, and the ratios of cost that are known."""
    own, reference = data.mean(student.name), data.mean(teacher.name)
    if own is None or not reference:
        return ""
    text = f"It keeps {own / reference:.0%} of the {readable(data.measure)} of "
    text += f"{data.label(teacher.name)} ({reference:.3f})"
    costs = []
    if student.layers and teacher.layers:
        costs.append(f"{student.layers} of {teacher.layers} layers")
    if student.parameters and teacher.parameters and student.parameters != teacher.parameters:
        costs.append(f"{student.parameters / teacher.parameters:.0%} of the parameters")
    speed = _speed(student, teacher)
    if speed:
        costs.append(f"{speed} times the queries per second")
    if not costs:
        return f"{text}."
    head = ", ".join(costs[:-1])
    return f"{text} with {head} and {costs[-1]}." if head else f"{text} with {costs[-1]}."


def facts(data: ReportData) -> list[tuple[str, str]]:
    """List a few (number, meaning) pairs to show below the headline."""
    student = data.system(data.main.student) if data.main else None
    if data.main is None or student is None:
        return []
    teacher = data.system(data.main.teacher)
    pairs = []
    measure, own = readable(data.measure), data.mean(student.name)
    if own is not None:
        pairs.append((f"{own:.3f}", f"{measure} of {data.label(student.name)}"))
    c = main_comparison(data)
    if c is not None:
        against = f"against {data.label(data.main.baseline)}, {format_p(c.p_holm)}"
        pairs.append((signed(c.difference), against))
    if teacher and teacher is not student:
        reference = data.mean(teacher.name)
        if own is not None and reference:
            pairs.append((f"{own / reference:.0%}", f"of the teacher’s {measure}"))
        speed = _speed(student, teacher)
        if speed:
            pairs.append((f"{speed}×", "the teacher’s queries per second"))
    return pairs


def _speed(student: SystemRow, teacher: SystemRow) -> str:
    if not student.queries_per_second or not teacher.queries_per_second:
        return ""
    ratio = student.queries_per_second / teacher.queries_per_second
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}"


WORST = 8


def teacher_section(data: ReportData) -> dict[str, Any] | None:
    """Prepare what the template shows; None if there is no record."""
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
        f"Of {count(record['negatives'])} training negatives of "
        f"{count(record['queries'])} queries the teacher scores "
        f"{record['above_best']:.1%} above the query’s best positive, and "
        f"{record['above_quantile']['0.5']:.1%} above the median positive of all queries. This "
        "shows how often teacher and labels disagree: some of these are relevant but not judged, "
        "some are errors of the teacher."
    )
    return {"sentence": sentence, "depths": record["by_depth"]}


KINDS = {
    "id": "same ID",
    "exact": "same text",
    "near": "near-duplicate",
    "ngram": "shared n-grams",
    "embedding": "neighbour",
}
WHATS = {
    "query": "test queries like a training query",
    "relevant document": "test queries with a relevant document like a training one",
    "document": "other documents like a training one",
}
GROUP_NAMES = {
    "all": "all",
    "clean": "clean",
    "query": "overlapping query",
    "relevant document": "overlapping document only",
}
NARROW = 0.005  # differences closer than this are called the same


def leak_section(data: ReportData) -> dict[str, Any] | None:
    """Prepare what the template shows; None if there is no audit."""
    record = data.audit
    if record is None:
        return None
    kinds = [k for k in KINDS if k != "embedding" or record["settings"].get("model")]
    effect = record.get("effect")
    return {
        "sentences": [_clean_queries(record["queries"]), *_effect_sentence(data, effect)],
        "counts": Grid(
            ["Evaluated", *(KINDS[kind] for kind in kinds)],
            [
                [Cell(WHATS[what]), *(Cell(count(counts.get(kind, 0))) for kind in kinds)]
                for what, counts in record["counts"].items()
                if what != "document" or any(counts.values())
            ],
        ),
        "examples": [
            {**pair, "overlaps": overlaps_line(pair["kinds"])}
            for pair in record.get("examples", [])
        ],
        "effect": _effect(data, effect),
        "trained": record["trained"],
        "not_checked": record.get("not_checked", []),
        "seconds": record.get("seconds"),
    }


def _clean_queries(n: dict[str, int]) -> str:
    """How many queries are clean, and what the others share with the training data."""
    text = f"{n['clean']} of {n['all']} test queries share nothing with the training data"
    if n["clean"] == n["all"]:
        return f"{text}."
    return (
        f"{text}; {n['query']} {'is' if n['query'] == 1 else 'are'} like a training query, "
        f"{n['relevant document']} more are answered by a document that answers one."
    )


def _effect_sentence(data: ReportData, effect: dict[str, Any] | None) -> list[str]:
    if effect is None:
        return []
    comparisons = effect["comparisons"]
    if "all" not in comparisons or "clean" not in comparisons:
        return []
    every, clean = comparisons["all"], comparisons["clean"]
    if every["queries"] == clean["queries"]:
        return []
    a, b = data.label(every["a"]), data.label(every["b"])
    moved = clean["difference"] - every["difference"]
    how = "the same" if abs(moved) < NARROW else "smaller" if moved < 0 else "larger"
    return [
        f"Without the overlapping queries the difference between {a} and {b} is {how}: "
        f"{_signed(clean)} on {clean['queries']} queries, instead of {_signed(every)} on all."
    ]


def _signed(comparison: dict[str, Any]) -> str:
    return f"{signed(comparison['difference'])} ({format_p(comparison['p'])})"


def _effect(data: ReportData, effect: dict[str, Any] | None) -> Grid | None:
    if effect is None:
        return None
    groups = [name for name in GROUP_NAMES if effect["queries"].get(name)]
    headers = [f"{GROUP_NAMES[name]} ({count(effect['queries'][name])})" for name in groups]
    rows = [
        [Cell(data.label(system)), *(Cell(score(means.get(name))) for name in groups)]
        for system, means in effect["means"].items()
    ]
    return Grid([f"{readable(effect['measure'])} on", *headers], rows)


def overlaps_line(kinds: Mapping[str, float]) -> str:
    """List kinds of overlap with similarities, except where these are 1 by definition."""
    return ", ".join(
        name if kind in ("id", "exact") else f"{name} {kinds[kind]:.2f}"
        for kind, name in KINDS.items()
        if kind in kinds
    )
