"""Diagnose students against their teacher: fidelity, calibration, failures, false negatives.

Each part has a file of its own here; `docs/diagnostics.md` explains each number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.diagnostics.calibration import calibration
from retrieval_kd.evaluation.diagnostics.failures import (
    bounds,
    failure_tables,
    query_features,
    worst_queries,
)
from retrieval_kd.evaluation.diagnostics.false_negatives import false_negatives
from retrieval_kd.evaluation.diagnostics.fidelity import MEASURES, fidelity
from retrieval_kd.evaluation.report import formats
from retrieval_kd.evaluation.report.grid import Cell, Grid, print_grid
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.names import cutoff, parse_measure, readable
from retrieval_kd.progress import Screen
from retrieval_kd.targets import CalibrationMethod

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection
    from retrieval_kd.data.qrels import Qrels

FORMAT = 1
POINTS = 1_000  # at most, of the scatter plot: each is an element of the page


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
    method: CalibrationMethod = "platt",
    temperature: float = 1.0,
    worst: int = 10,
    exclude_self: bool = True,
) -> dict[str, Any]:
    """Build the JSON-able record that `rkd diagnose` writes.

    Args:
        students: the student first, then others to show beside it; names must differ.
        measure: of quality and failures; its cut-off is the k of label fidelity (else 10).
        first_stage: the run whose documents the teacher could rank; None: the teacher's own.
        negatives: a teacher's scores of training candidates, judged by `negatives_qrels`.
        temperature: of the softmaxes that probability fidelity compares.
        worst: how many queries to list with their texts.

    Raises:
        InputError: two runs have the same name, or a run has no judged query.
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
    depth = max(map(len, teacher.results.values()))  # the same for all systems

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
            "loyalty": fidelity(teacher, student, kept, k=k, temperature=temperature),
            "failures": failure_tables(features, *both),
            "worst": worst_queries(collection, kept, (teacher, student), both, worst),
            "points": score_pairs(teacher, student, kept),
        }
    if negatives is not None:
        record["negatives"] = false_negatives(negatives, negatives_qrels or qrels)
    return record


def _without_self(run: Run) -> Run:
    kept = {q: {d: s for d, s in ranking.items() if d != q} for q, ranking in run.results.items()}
    return Run(run.name, kept)


def score_pairs(
    teacher: Run, student: Run, qrels: Qrels, most: int = POINTS
) -> list[tuple[float, float, bool]]:
    """List (teacher's score, student's score, relevant) of about `most` documents both ranked.

    The list begins with the relevant ones; if there are too many, it has every n-th.
    """
    pairs = [
        (score, student.results[query][document], judged.get(document, 0) > 0)
        for query, judged in qrels.items()
        for document, score in teacher.results.get(query, {}).items()
        if document in student.results.get(query, {})
    ]
    relevant, others = ([pair for pair in pairs if pair[2] is kind] for kind in (True, False))
    relevant = relevant[:: max(1, -(-len(relevant) // most))]
    room = max(1, most - len(relevant))
    return relevant + others[:: max(1, -(-len(others) // room))]


def print_diagnostics(record: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the record's tables; failures and worst queries are those of the first student."""
    console = console or Screen()
    first = next(iter(record["students"].values()))
    measure = readable(record["measure"])
    grids = [_fidelity_grid(record)]
    grids += [_failure_grid(name, rows, measure) for name, rows in first["failures"].items()]
    for grid in grids:
        print_grid(grid, console)
        console.print()
    if first["worst"]:
        console.print(f"{first['name']} loses most to the teacher on:", markup=False)
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
            f"The teacher scores {n['above_best']:.1%} of {n['negatives']} training negatives "
            f"above their query's best positive, and {n['above_quantile']['0.5']:.1%} above the "
            f"median positive; of the hardest negative of each query, "
            f"{n['by_depth'][0]['above_best']:.1%} above the best positive"
        )


def _fidelity_grid(record: Mapping[str, Any]) -> Grid:
    students = list(record["students"].values())
    k = students[0]["loyalty"]["k"]
    measure = readable(record["measure"])
    heads = (measure, "top 1", f"top {k}", f"rel@{k}", "prob", "τ", "RBO", "ECE", "skill")
    rows = []
    for system in (record["teacher"], *students):
        means = system.get("loyalty", {}).get("mean", {})
        fit = system["calibration"] or {}
        numbers = [system["mean"], *map(means.get, MEASURES), fit.get("ece"), fit.get("skill")]
        rows.append([Cell(system["name"]), *(Cell(formats.score(value)) for value in numbers)])
    return Grid(["system", *heads], rows, title=f"{record['queries']} queries")


def _failure_grid(feature: str, rows: Sequence[Mapping[str, Any]], measure: str) -> Grid:
    cells = [
        [
            Cell(bounds(row["from"], row["to"])),
            Cell(str(row["count"])),
            Cell(formats.score(row["teacher"])),
            Cell(formats.score(row["student"])),
            Cell(f"{row['difference']:+.3f}"),
            Cell("–" if row["low"] is None else f"{row['low']:+.3f} … {row['high']:+.3f}"),
            Cell(str(row["failed"])),
        ]
        for row in rows
    ]
    heads = [" ", "queries", "teacher", "student", "difference", "95 % CI", "failed"]
    return Grid(heads, cells, title=f"{measure} by {feature}")
