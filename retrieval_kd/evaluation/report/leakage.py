"""The report's section on leakage between training and test data, from an `audit_summary`."""

from __future__ import annotations

from typing import Any

from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.data import ReportData
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import format_p

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
GROUPS = {
    "all": "all",
    "clean": "clean",
    "query": "overlapping query",
    "relevant document": "overlapping document only",
}
NARROW = 0.005  # differences closer than this are called the same


def leak_section(data: ReportData) -> dict[str, Any] | None:
    """Prepare what the template shows; None without an audit."""
    record = data.audit
    if record is None:
        return None
    kinds = [k for k in KINDS if k != "embedding" or record["settings"].get("model")]
    effect = record.get("effect")
    return {
        "sentences": [_finding(record["queries"]), *_effect_sentence(data, effect)],
        "kinds": [KINDS[kind] for kind in kinds],
        "counts": [
            (WHATS[what], [counts.get(kind, 0) for kind in kinds])
            for what, counts in record["counts"].items()
            if what != "document" or any(counts.values())
        ],
        "examples": [_example(pair) for pair in record.get("examples", [])],
        "effect": _effect(data, effect),
        "trained": record["trained"],
        "not_checked": record.get("not_checked", []),
        "seconds": record.get("seconds"),
    }


def _finding(n: dict[str, int]) -> str:
    """How many queries are clean, and what the others share with the training data."""
    text = f"{n['clean']} of {n['all']} test queries share nothing with the training data"
    if n["clean"] == n["all"]:
        return f"{text}."
    return (
        f"{text}; {n['query']} {'is' if n['query'] == 1 else 'are'} like a training query, "
        f"{n['relevant document']} more are answered by a document that answers one."
    )


def _effect_sentence(data: ReportData, effect: dict[str, Any] | None) -> list[str]:
    if effect is None or "measure" not in effect:  # that of `rkd audit`, of several measures
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
    return f"{formats.signed(comparison['difference'])} ({format_p(comparison['p'])})"


def _effect(data: ReportData, effect: dict[str, Any] | None) -> dict[str, Any] | None:
    if effect is None or "measure" not in effect:
        return None
    groups = [name for name in GROUPS if effect["queries"].get(name)]
    return {
        "measure": readable(effect["measure"]),
        "groups": [(GROUPS[name], effect["queries"][name]) for name in groups],
        "rows": [
            (data.label(system), [means.get(name) for name in groups])
            for system, means in effect["means"].items()
        ],
    }


def _example(pair: dict[str, Any]) -> dict[str, Any]:
    overlaps = [
        KINDS[kind] if kind in ("id", "exact") else f"{KINDS[kind]} {value:.2f}"
        for kind, value in pair["kinds"].items()
        if kind in KINDS
    ]
    return {**pair, "overlaps": ", ".join(overlaps)}
