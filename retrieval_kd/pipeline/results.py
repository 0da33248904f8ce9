"""The results of a run: all systems evaluated and compared, checked, and reported.

The checks are for leakage, and of the students against their teacher. They return plain data, which
goes to results.json and is shown in the report.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from retrieval_kd.audit.audit import audit
from retrieval_kd.audit.effect import restrict
from retrieval_kd.audit.show import audit_summary
from retrieval_kd.config.run import REFERENCES, Config
from retrieval_kd.data.runs import Run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.evaluation.diagnostics.diagnose import diagnostics
from retrieval_kd.evaluation.diagnostics.false_negatives import false_negatives
from retrieval_kd.evaluation.report.data import Curve, Main, ReportData, SystemRow
from retrieval_kd.evaluation.report.explorer import explorer_from
from retrieval_kd.evaluation.report.grid import Grid, print_grid, to_latex, to_markdown
from retrieval_kd.evaluation.report.page import write_report
from retrieval_kd.evaluation.report.plan import plan_grid
from retrieval_kd.evaluation.report.table import Clean, to_grid
from retrieval_kd.files import digest_json, read_json, write_json, write_text
from retrieval_kd.hardware import describe, versions
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.names import readable
from retrieval_kd.metrics.significance import Comparison, compare
from retrieval_kd.models.load import model_digest
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.costs import run_costs
from retrieval_kd.pipeline.descriptions import (
    cost_notes,
    describe_system,
    gain_sentence,
    layer_note,
    teacher_notes,
)
from retrieval_kd.pipeline.forecast.took import PLAN, planned_and_taken
from retrieval_kd.progress import say


class RunResults:
    """The results of one run, as JSON, tables and a report."""

    def __init__(self, context: RunContext) -> None:
        self.context, self.config, self.work = context, context.config, context.work

    def stage(self, name: str) -> str:
        """The name of a stage of this configuration alone, as several may share one `out`."""
        return f"{name}:{self.config.results}" if self.config.results else name

    def file(self, name: str) -> str:
        """The path in the workspace of a file of this configuration alone."""
        return str(Path(self.config.results, name))

    def evaluate(self) -> dict[str, Any]:
        """Write results.json: every system, every seed, the paired tests."""
        evaluation, comparisons = self.evaluation
        measures = evaluation.measures
        record = {
            "collection": self.context.collection.stats(),
            "queries": len(evaluation.queries),
            "measures": measures,
            "systems": {
                system: {
                    measure: {
                        "mean": evaluation.mean(system, measure),
                        "per_seed": evaluation.per_seed(system, measure),
                    }
                    for measure in measures
                }
                for system in evaluation.systems
            },
            "comparisons": [vars(comparison) for comparison in comparisons],
            "costs": self.costs,
            "teacher": self._teacher_facts,
            "audit": audit_run(self.config, evaluation),
            "diagnostics": diagnose_run(self.context, measures[0], self.config.compare),
            "digests": digests(self.context),
            "rules": evaluation.rules,
            "counts": evaluation.counts,
            "settings": self.config.model_dump(by_alias=True),
            "versions": versions(),
            "hardware": describe(),
        }
        write_json(self.work.path(self.file("results.json")), record)
        return {"systems": evaluation.systems}

    @cached_property
    def evaluation(self) -> tuple[Evaluation, list[Comparison]]:
        """Evaluate all systems on test, seeds averaged per query; compare each to the baseline."""
        config = self.config
        groups = {name: self.context.run_names(name) for name in config.systems}
        names = [*REFERENCES, *(n for group in groups.values() for n in group)]
        qrels = self.context.queries("test").qrels
        single = evaluate(qrels, self.context.runs(names), config.measures)
        evaluation = single.group(groups)
        return evaluation, compare(evaluation, baseline=config.compare[1])

    @cached_property
    def costs(self) -> dict[str, dict[str, Any]]:
        """The costs of each system."""
        return run_costs(self.context, self.stage("measure"))

    @property
    def grid(self) -> Grid:
        """The table of all systems, with means on clean queries if any overlap."""
        results = read_json(self.work.path(self.file("results.json")))
        clean = Clean.of(results["audit"], results["settings"])
        return to_grid(*self.evaluation, self.costs, clean=clean)

    @property
    def _planned(self) -> list[dict[str, Any]]:
        """Planned and taken seconds of the stages before the report, if there is a plan."""
        stages = planned_and_taken(self.work, self.work.path(self.file(PLAN)))
        return [stage for stage in stages if stage["title"] != self.stage("report")]

    @property
    def _teacher_facts(self) -> dict[str, Any]:
        """The facts of tuning the teacher on dev."""
        return self.work.record("weights").get("facts", {})

    def report(self) -> None:
        """Write report.html, and the table as results.md and results.tex."""
        evaluation, comparisons = self.evaluation
        student, baseline = self.config.compare
        stats = self.context.collection.stats()
        drops = self.work.record("queries").get("facts", {}).get("drops", [])
        results = read_json(self.work.path(self.file("results.json")))
        qrels = self.context.queries("test").qrels
        runs = self.context.runs([n for s in evaluation.systems for n in self.context.run_names(s)])
        collection, measure = self.context.collection, evaluation.measures[0]
        data = ReportData(
            title=self.config.name,
            subtitle=self._subtitle(),
            collection=stats,
            values=evaluation.to_json(),
            systems=[self._row(system) for system in evaluation.systems],
            comparisons=comparisons,
            curves={name: self._curves(name) for name in self.config.students},
            diagnostics=results.get("diagnostics"),
            audit=results.get("audit"),
            explorer=explorer_from(evaluation, runs, qrels, collection, (student, baseline)),
            settings=self.config.model_dump(by_alias=True),
            digests=results.get("digests", {}),
            versions=versions(),
            hardware=describe(),
            commands=[shlex.join(["rkd", *sys.argv[1:]])],
            notes=[
                *teacher_notes(self._teacher_facts),
                *self._layer_notes(),
                *cost_notes(self.work),
                *drops,
            ],
            stages=self._planned,
            rules=evaluation.rules,
            main=Main(student, baseline, "teacher"),
            measure=measure,
        )
        write_json(self.work.path(self.file("report.json")), data.to_json())
        write_report(data, self.work.path(self.file("report.html")))
        for name, write in (("results.md", to_markdown), ("results.tex", to_latex)):
            write_text(self.work.path(self.file(name)), write(self.grid) + "\n")
        if plan := plan_grid(self._planned):
            path = self.work.path(self.file("results.md"))
            write_text(path, f"{path.read_text('utf-8')}\n{to_markdown(plan)}\n")

    def print(self) -> None:
        """Print the table, the main comparison, what each student gains, and where all is."""
        evaluation, comparisons = self.evaluation
        print_grid(self.grid)
        student, measure = self.config.compare[0], evaluation.measures[0]
        for comparison in comparisons:
            if comparison.a == student and comparison.measure == measure:
                say(comparison.sentence())
        teacher = evaluation.mean("teacher", measure)
        if teacher:
            share = evaluation.mean(student, measure) / teacher
            say(f"{student} keeps {share:.1%} of the teacher's {readable(measure)}")
        means = {system: evaluation.mean(system, measure) for system in evaluation.systems}
        for name in self.config.systems:
            say(gain_sentence(name, readable(measure), means, self.costs))
        say(f"Report: {self.work.path(self.file('report.html'))}")
        name = self.context.run_names(student)[0]
        index = self.work.path("indexes", name)
        if index.exists():
            say(f"Student: {self.work.path('students', name)}")
            say(f'Search it: rkd search --index {index} "…"')

    def _subtitle(self) -> str:
        counts = self.work.record("queries").get("facts", {}).get("queries", {})
        parts = [f"{number:,} {part} queries" for part, number in counts.items() if number]
        return f"{self.context.collection.name}: " + ", ".join(parts)

    def _row(self, system: str) -> SystemRow:
        costs = self.costs[system]
        names = [field.name for field in fields(SystemRow)]
        shown = {name: costs[name] for name in names if costs.get(name) is not None}
        if costs.get("layers"):
            shown["document_tokens"] = self.config.student.max_length
        weights = self._teacher_facts.get("weights", {})
        label, description, kind = describe_system(self.config, weights, system)
        return SystemRow(system, label=label, description=description, kind=kind, **shown)

    def _layer_notes(self) -> list[str]:
        """How the layers of students were chosen, where dev queries did; the same for each seed."""
        notes = []
        for student in self.config.students:
            path = self.work.path("students", self.context.run_names(student)[0], "training.json")
            choice = read_json(path).get("layers")
            notes += [layer_note(student, choice)] if choice else []
        return notes

    def _curves(self, student: str) -> list[Curve]:
        names = self.context.run_names(student)
        return [read_json(self.work.path("students", n, "training.json"))["curve"] for n in names]


def audit_run(config: Config, evaluation: Evaluation) -> dict[str, Any]:
    """Audit train and unlabelled queries and judged documents against those of the test part.

    Compares IDs, exact texts, n-grams and near-duplicates, but no embeddings, so it takes seconds
    and no model. In the result, `effect` has the means of the first measure and the main
    comparison, on all test queries and on clean ones; `seconds` is the time it took.
    """
    started = time.monotonic()
    leaks = audit(
        [f"run:{config.out}"],
        f"{config.collection}:{config.splits.test}",
        collection=config.collection,
        only=evaluation.queries,  # a run may test a sample of its split
    )
    record = audit_summary(leaks)
    record["effect"] = effect_of(evaluation, leaks.groups(), config.compare)
    record["seconds"] = round(time.monotonic() - started, 1)
    return record


def effect_of(
    evaluation: Evaluation, groups: dict[str, list[str]], pair: tuple[str, str]
) -> dict[str, Any]:
    """Return means of the first measure by group; compare the pair on all and clean queries."""
    measure, parts = evaluation.measures[0], restrict(evaluation, groups)
    cut = {name: part for name, part in parts.items() if part.queries}
    return {
        "measure": measure,
        "queries": {name: len(part.queries) for name, part in parts.items()},
        "means": {
            system: {name: part.mean(system, measure) for name, part in cut.items()}
            for system in evaluation.systems
        },
        "comparisons": {
            name: vars(compare(cut[name], measures=[measure], pairs=[pair])[0])
            for name in ("all", "clean")
            if name in cut
        },
    }


def diagnose_run(context: RunContext, measure: str, names: Sequence[str]) -> dict[str, Any] | None:
    """Compare the teacher with the first seed of these students; None if none is a student.

    Values per query are left out: `rkd diagnose` computes them again from the run files.
    """
    config = context.config
    seed = config.seeds[0]
    files = {name: context.run_names(name)[0] for name in names if name != "teacher"}
    if not any(name in config.systems for name in files):
        return None
    runs = context.runs(["teacher", *files.values()])
    students = [Run(name, runs[file].results) for name, file in files.items()]
    train, drops = context.queries("train"), Drops()
    record = diagnostics(
        context.collection,
        context.queries("test").qrels,
        runs["teacher"],
        students,
        measure=measure,
        first_stage=Run("first stage", context.candidates("test")),
    )
    try:
        scores = context.ensemble.fused("train", drops)
        record["negatives"] = false_negatives(scores, train.qrels)
    except InputError as error:  # no training query has both
        record["negatives"] = {"unknown": error.problem}
    for student in record["students"].values():
        del student["loyalty"]["per_query"]
    return {**record, "seed": seed}


def digests(context: RunContext) -> dict[str, str]:
    """Return digests of all that results come from and that may change under the same name."""
    config, collection = context.config, context.collection
    splits = (config.splits.train, config.splits.dev, config.splits.test)
    of_splits = {f"judgments, {s}": collection.qrels_digest(s) for s in splits if s}
    models = {config.encoder, *(config.student_for(t).base for t in config.students.values())}
    of_models = {model: model_digest(model) for model in sorted(models)}
    places: Any = {"out": True, "results": True, "teacher": {"store"}}
    settings = digest_json(config.model_dump(by_alias=True, exclude=places))
    return {"texts": collection.digest(), **of_splits, **of_models, "settings": settings}
