"""Checks of a finished run: leakage, and its students against their teacher.

They return plain data, which goes to results.json and is shown in the report.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from retrieval_kd.audit.audit import audit
from retrieval_kd.audit.effect import restrict
from retrieval_kd.audit.show import audit_summary
from retrieval_kd.config.run import Config
from retrieval_kd.data.runs import Run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.evaluation.diagnostics.diagnose import diagnostics
from retrieval_kd.evaluation.diagnostics.false_negatives import false_negatives
from retrieval_kd.files import digest_json
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.significance import compare
from retrieval_kd.models.load import model_digest
from retrieval_kd.pipeline.context import RunContext, seeded

POINTS = 1_000  # in a scatter plot; each is an element of the page


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
    measure, evaluated = evaluation.measures[0], set(evaluation.queries)
    parts = {name: [q for q in members if q in evaluated] for name, members in groups.items()}
    cut = {name: restrict(evaluation, members) for name, members in parts.items() if members}
    return {
        "measure": measure,
        "queries": {name: len(members) for name, members in parts.items()},
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
    files = {n: seeded(n, seed) if n in config.systems else n for n in names if n != "teacher"}
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
        student["points"] = [[t, s, r] for t, s, r in thinned(student["points"])]
    return {**record, "seed": seed}


def thinned(
    points: list[tuple[float, float, bool]], most: int = POINTS
) -> list[tuple[float, float, bool]]:
    """Keep about `most` points, relevant ones first.

    Example:
        >>> thinned([(0.0, 0.0, True), *((1.0, 1.0, False) for _ in range(9))], most=4)
        [(0.0, 0.0, True), (1.0, 1.0, False), (1.0, 1.0, False), (1.0, 1.0, False)]
    """
    relevant, others = ([p for p in points if p[2] is kind] for kind in (True, False))
    relevant = relevant[:: max(1, -(-len(relevant) // most))]
    room = max(1, most - len(relevant))
    return relevant + others[:: max(1, -(-len(others) // room))]


def digests(context: RunContext) -> dict[str, str]:
    """Return digests of all that results come from and that may change under the same name."""
    config, collection = context.config, context.collection
    splits = (config.splits.train, config.splits.dev, config.splits.test)
    of_splits = {f"judgments, {s}": collection.qrels_digest(s) for s in splits if s}
    models = {config.encoder, *(config.student_for(t).base for t in config.students.values())}
    of_models = {model: model_digest(model) for model in sorted(models)}
    settings = digest_json(config.model_dump(by_alias=True, exclude={"out", "results"}))
    return {"texts": collection.digest(), **of_splits, **of_models, "settings": settings}
