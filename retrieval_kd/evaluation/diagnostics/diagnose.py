"""Teacher against students, as one record: loyalty, calibration, failures, suspected negatives.

The parts are in `loyalty.py`, `calibration.py`, `failures.py`, `negatives.py`; pictures of the
record are in `diagnostic_figures.py`. What each number means: `docs/diagnostics.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.diagnostics.calibration import Method, calibration
from retrieval_kd.evaluation.diagnostics.failures import (
    bounds,
    failure_tables,
    query_features,
    worst_queries,
)
from retrieval_kd.evaluation.diagnostics.false_negatives import false_negatives
from retrieval_kd.evaluation.diagnostics.fidelity import MEASURES, loyalty
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.names import cutoff, parse_measure, readable

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection
    from retrieval_kd.data.qrels import Qrels

FORMAT = 1
POINTS = 2000  # at most, of the scatter plot


def diagnostics(
    collection: Collection,
    qrels: Qrels,
    teacher: Run,
    students: Sequence[Run],
    *,
    measure: str = "ndcg@10",
    first_stage: Run | None = None,
    negatives: Mapping[str, Mapping[str, float]] | None = None,
    negatives_qrels: Qrels | None = None,
    method: Method = "platt",
    temperature: float = 1.0,
    worst: int = 10,
    exclude_self: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that `rkd diagnose` writes, as a JSON-able record.

    Args:
        students: the student first, then others to show beside it; names must differ.
        measure: what failures are counted in; its cut-off is the k of label loyalty (else 10).
        first_stage: the run whose documents the teacher could rank; None: the teacher's own.
        negatives: a teacher's scores of training candidates, judged by `negatives_qrels`.
        temperature: of the softmaxes that probability loyalty compares.
        worst: how many queries to list with their texts.

    Raises:
        InputError: two runs have one name, or a run has no judged query.
    """
    names = [teacher.name, *(student.name for student in students)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not students:
        problem = f"two runs are named {twice!r}" if twice is not None else "no student to diagnose"
        raise InputError(problem, remedy="give each run its own file name")
    if exclude_self:
        teacher, *students = (_without_self(run) for run in (teacher, *students))
        first_stage = _without_self(first_stage) if first_stage else None
    name = parse_measure(measure)
    k = cutoff(name) or 10
    evaluation = evaluate(qrels, [teacher, *students], [name], exclude_self=exclude_self)
    values = {run.name: evaluation.per_query[run.name][name] for run in (teacher, *students)}
    kept = {
        query: {d: gain for d, gain in qrels[query].items() if d != query or not exclude_self}
        for query in evaluation.queries
    }
    features = query_features(collection, kept, first_stage or teacher)
    depth = max(len(found) for found in teacher.results.values())  # the same for all systems

    def describe(run: Run) -> dict[str, Any]:
        fitted = calibration(run, kept, method, depth=depth)
        return {"name": run.name, "mean": evaluation.mean(run.name, name), "calibration": fitted}

    record: dict[str, Any] = {
        "format": FORMAT,
        "measure": name,
        "queries": len(kept),
        "teacher": describe(teacher),
        "students": {},
        "negatives": None,
    }
    for student in students:
        both = values[teacher.name], values[student.name]
        record["students"][student.name] = {
            **describe(student),
            "loyalty": loyalty(teacher, student, kept, k=k, temperature=temperature),
            "failures": failure_tables(features, *both, seed=seed),
            "worst": worst_queries(collection, kept, (teacher, student), both, worst),
            "points": score_pairs(teacher, student, kept),
        }
    if negatives is not None:
        record["negatives"] = false_negatives(negatives, negatives_qrels or qrels)
    return record


def _without_self(run: Run) -> Run:
    kept = {q: {d: s for d, s in found.items() if d != q} for q, found in run.results.items()}
    return Run(run.name, kept)


def score_pairs(
    teacher: Run, student: Run, qrels: Qrels, most: int = POINTS
) -> list[tuple[float, float, bool]]:
    """(teacher's score, student's score, relevant) of documents that both ranked.

    All relevant ones, and of the others every n-th, so that at most about `most` remain.
    """
    pairs = [
        (score, student.results[query][document], judged.get(document, 0) > 0)
        for query, judged in qrels.items()
        for document, score in teacher.results.get(query, {}).items()
        if document in student.results.get(query, {})
    ]
    others = [pair for pair in pairs if not pair[2]]
    return [pair for pair in pairs if pair[2]] + others[:: max(1, -(-len(others) // most))]


def print_diagnostics(record: Mapping[str, Any], console: Console | None = None) -> None:
    """The record's tables, for a terminal; of failures those of the first student."""
    console = console or Console()
    measure, students = readable(record["measure"]), list(record["students"].values())
    k = students[0]["loyalty"]["k"]
    table = _table(f"{record['queries']} queries")
    table.add_column("system", overflow="fold")
    for head in (measure, "top 1", f"top {k}", f"rel@{k}", "prob", "τ", "RBO", "ECE", "skill"):
        table.add_column(head, justify="right", no_wrap=True)
    for system in (record["teacher"], *students):
        means = system.get("loyalty", {}).get("mean", {})
        fit = system["calibration"] or {}
        numbers = [system["mean"], *map(means.get, MEASURES), fit.get("ece"), fit.get("skill")]
        table.add_row(system["name"], *map(_number, numbers))
    console.print(table)
    first = students[0]
    for feature, rows in first["failures"].items():
        console.print(_failures(feature, rows, measure))
    if first["worst"]:
        console.print(f"{first['name']} loses most to the teacher on:")
    for case in first["worst"]:
        console.print(
            f"  {case['teacher']:.2f} → {case['student']:.2f}  {case['query'][:90]}  "
            f"[{case['query_id']}]",
            highlight=False,
            markup=False,
        )
    if record["negatives"]:
        n = record["negatives"]
        console.print(
            f"{n['above_best']:.1%} of {n['negatives']} training negatives stand above their "
            f"query's best positive in the teacher's eyes, {n['above_quantile']['0.5']:.1%} above "
            f"the median positive; of each query's hardest, {n['by_depth'][0]['above_best']:.1%}"
        )


def _failures(feature: str, rows: Sequence[Mapping[str, Any]], measure: str) -> Table:
    table = _table(f"{measure} by {feature}")
    for head in ("", "queries", "teacher", "student", "difference", "95 % CI", "failed"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            bounds(row["from"], row["to"]),
            str(row["count"]),
            _number(row["teacher"]),
            _number(row["student"]),
            f"{row['difference']:+.3f}",
            "–" if row["low"] is None else f"{row['low']:+.3f} … {row['high']:+.3f}",
            str(row["failed"]),
        )
    return table


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
