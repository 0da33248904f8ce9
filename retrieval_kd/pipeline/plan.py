"""`rkd run`: its stages in order, and for each what it writes and what decides its results.

Each stage has a key: the digest of its settings and of the keys of the stages it needs. A stage
runs again when its key changes or an output is missing. So `settings` must hold every setting that
changes what the stage writes and no other, and `needs` every stage whose outputs it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from retrieval_kd.config.run import Config, merged_system
from retrieval_kd.config.student import Student
from retrieval_kd.config.teacher import and_choosers, chosen_by
from retrieval_kd.config.training import Training, TrainingStage
from retrieval_kd.data.collection import Collection
from retrieval_kd.files import digest_file
from retrieval_kd.hardware import dtype_name, fast_dtype, versions
from retrieval_kd.indexing.spec import load_spec, spec_for
from retrieval_kd.models.load import model_digest
from retrieval_kd.pipeline.checks import check_models, check_splits
from retrieval_kd.pipeline.cloze import QUERIES, check_cloze, cut_documents, score_cloze, weigh
from retrieval_kd.pipeline.context import PARTS, RunContext, seeded
from retrieval_kd.pipeline.costs import measure_latency
from retrieval_kd.pipeline.pools import draws_unlabelled
from retrieval_kd.pipeline.results import RunResults
from retrieval_kd.pipeline.stages import (
    choose_queries,
    fine_tune_teacher,
    index_and_search,
    rerank_with_student,
    rerank_with_teacher,
    retrieve_candidates,
    search_bm25,
)
from retrieval_kd.pipeline.train_students import (
    final_folder,
    merge_one,
    merge_seeds,
    student_folders,
    train_one,
)
from retrieval_kd.retrieval.retrieve import retriever_models
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.teachers.kinds import WITHOUT_MODEL
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.workspace import Stage, Workspace

REPORT_FORMAT = 3  # of report.json: a report in another form is written again


def run(
    config: Config, before: Callable[[Stage, bool, str], None] = lambda stage, done, number: None
) -> RunResults:
    """Run the stages that are not done, and return the results.

    Args:
        before: called with each stage, whether it is done already, and its number, as in 3/19.
    """
    context = planned(config)
    context.work.execute(before)
    return RunResults(context)


def plan(config: Config) -> Workspace:
    """Return the workspace with all stages added and none run. Opens the collection."""
    return planned(config).work


def planned(config: Config, collection: Collection | None = None) -> RunContext:
    """Return the run with all its stages planned; `collection` is opened if it is not given."""
    context = RunContext(config, Workspace(config.out))
    if collection is not None:
        context.collection = collection
    check_splits(context)
    check_models(context)
    check_cloze(context)
    precision = dtype_name(fast_dtype())  # the type that models compute in changes every score
    for stages in (_query_stages, _teacher_stages, _baseline_stages, _student_stages):
        for stage in stages(context):
            context.work.add(replace(stage, settings=[precision, stage.settings]))
    for stage in _result_stages(context):
        context.work.add(stage)
    return context


def _query_stages(context: RunContext) -> Iterator[Stage]:
    """Choose the queries of each part, and retrieve their candidates."""
    config, collection = context.config, context.collection
    yield Stage(
        "queries",
        run=partial(choose_queries, context),
        outputs=tuple(f"queries/{part}.json" for part in PARTS),
        settings=[
            collection.digest(),
            [collection.qrels_digest(split) for split in collection.splits],
            config.splits.cache_key(),
            config.unlabelled.cache_key() if config.unlabelled else None,
            *_log_digest(context),
        ],
    )
    models = list(map(model_digest, retriever_models(config.first_stage.with_)))
    yield Stage(
        "candidates",
        run=partial(retrieve_candidates, context),
        outputs=tuple(f"candidates/{part}.json" for part in PARTS),
        settings=[
            config.first_stage.cache_key(),
            models,
            config.student.max_length if models else None,
        ],
        needs=("queries",),
    )


def _log_digest(context: RunContext) -> list[str]:
    """Digest the file of a query log, if there is one."""
    log = context.config.unlabelled and context.config.unlabelled.log
    is_file = log is not None and log not in context.collection.splits
    return [digest_file(log)] if log and is_file else []


def _teacher_stages(context: RunContext) -> Iterator[Stage]:
    """Fit a teacher, try all of them, weigh them, then score the rest and re-rank test.

    The weights come before most of the scores, as teachers without a weight score no more. What
    uses scores needs `try:MEMBER`, whose key stands for all scores of the member: what
    `score:MEMBER` has not stored is scored when it is needed.
    """
    config, ensemble = context.config, context.ensemble
    fit = config.teacher.fit
    if fit:
        yield Stage(
            "fit-teacher",
            run=partial(fine_tune_teacher, context),
            outputs=("teacher", "teacher/training.json"),
            settings=[
                fit.cache_key(),
                _model_key(fit.base),
                None if fit.is_decoder else config.teacher.max_length,
            ],
            needs=("candidates",),
        )
    members, served = and_choosers(ensemble.members), config.teacher.served
    cloze = config.teacher.weights == "cloze"
    if cloze:
        yield Stage(
            "cloze",
            run=partial(cut_documents, context),
            outputs=("cloze",),
            settings=[QUERIES],
            needs=("candidates",),
        )
    for member in members:
        fitted = member == config.teacher.fitted
        chooser = chosen_by(member)
        yield Stage(
            f"try:{member}",
            run=partial(score_cloze, context, member)
            if cloze
            else partial(ensemble.score, member, ["dev"]),
            outputs=(config.store,),
            settings=None
            if fitted
            else [
                member,
                _model_key(member, config.teacher.server if member in served else None),
                config.max_length_for(parse_spec(member).kind),
            ],
            needs=(
                "cloze" if cloze else "candidates",
                *(["fit-teacher"] if fitted else []),
                *([f"try:{chooser}"] if chooser else []),
            ),
        )
    yield Stage(
        "weights",
        run=partial(weigh, context) if cloze else ensemble.tune,
        outputs=("teacher.json",),
        settings=config.teacher.cache_key(),
        needs=tuple(f"try:{member}" for member in members),
    )
    for member in members:
        yield Stage(
            f"score:{member}",
            run=partial(ensemble.score, member, ["train", "unlabelled", "test"]),
            outputs=(config.store,),
            settings=None,
            needs=(f"try:{member}", "weights"),
        )
    yield Stage(
        "teacher",
        run=partial(rerank_with_teacher, context),
        outputs=("runs/teacher.trec",),
        settings=None,
        needs=("weights",),
    )


def _baseline_stages(context: RunContext) -> Iterator[Stage]:
    """Search the test queries with BM25 and with the untrained encoder."""
    config = context.config
    yield Stage(
        "search:bm25",
        run=partial(search_bm25, context),
        outputs=("runs/bm25.trec",),
        settings=config.depth,
        needs=("queries",),
    )
    yield Stage(
        "search:encoder",
        run=partial(index_and_search, context, "encoder", config.encoder),
        outputs=("indexes/encoder", "runs/encoder.trec"),
        settings=[
            model_digest(config.encoder),
            load_spec(config.index).as_dict(),
            config.student.max_length,
            config.depth,
        ],
        needs=("queries",),
    )


def _student_stages(context: RunContext) -> Iterator[Stage]:
    """Train every student with every seed, and search the test queries with it."""
    for name, training in context.config.students.items():
        for seed in context.config.seeds:
            yield from _training_stages(context, name, training, seed)
            yield from _search_stages(context, name, training, seed)
        if training.merged_with == "seeds":
            yield Stage(
                f"merge:{merged_system(name)}",
                run=partial(merge_seeds, context, name, training),
                outputs=(str(final_folder(name, training, None)),),
                settings=None,
                needs=tuple(f"train:{seeded(name, seed)}" for seed in context.config.seeds),
                label=f"merge:{merged_system(name)}",
            )
            yield from _search_stages(context, name, training, None)


def _training_stages(
    context: RunContext, name: str, training: Training, seed: int
) -> Iterator[Stage]:
    config, student = context.config, context.config.student_for(training)
    previous: tuple[str, ...] = _starts(config, student, seed)
    for stage_index, stage in enumerate(training.all_stages):
        folder = student_folders(name, training, seed)[stage_index]
        settings = config.train_settings(training, stage, seed=seed)
        stage_suffix = f" stage {stage_index + 1}" if training.stages else ""
        yield Stage(
            f"train:{folder.name}",
            run=partial(train_one, context, name, training, seed, stage_index),
            outputs=(str(folder), f"{folder}/training.json"),
            settings=[
                student.cache_key(),
                None if student.start else model_digest(student.base),
                settings.model_dump(),
                stage.cache_key(),
                [model_digest(model) for model in stage.other_models],
                _scores_key(config, stage),
                config.unlabelled.share
                if config.unlabelled and draws_unlabelled(config.unlabelled, stage)
                else None,
            ],
            needs=("candidates", *_score_stages(config, stage), *previous),
            label=f"train:{context.label(name, seed)}{stage_suffix}",
        )
        previous = (f"train:{folder.name}",)
    if training.merge and training.merged_with == "start":
        final = final_folder(name, training, seed)
        yield Stage(
            f"merge:{seeded(name, seed)}",
            run=partial(merge_one, context, name, training, seed),
            outputs=(str(final),),
            settings=training.merge.cache_key(),
            needs=("candidates", *previous),
            label=f"merge:{context.label(name, seed)}",
        )


def _starts(config: Config, student: Student, seed: int) -> tuple[str, ...]:
    """The stage that makes the student which this one starts from, if that is one of the run."""
    if student.start is None:
        return ()
    made = "merge" if config.students[student.start].merged_with == "start" else "train"
    return (f"{made}:{seeded(student.start, seed)}",)


def _search_stages(
    context: RunContext, name: str, training: Training, seed: int | None
) -> Iterator[Stage]:
    """Search with a student, and with each of its widths; a cross-encoder re-ranks instead.

    Without a seed it is the average of all.
    """

    def named(system: str) -> tuple[str, str]:
        """Its name on disk, and the one users see."""
        if seed is None:
            return system, system
        return seeded(system, seed), context.label(system, seed)

    config, student = context.config, context.config.student_for(training)
    base = merged_system(name) if seed is None else name
    trained, label = named(base)
    is_merged = seed is None or training.merged_with == "start"
    made = f"merge:{trained}" if is_merged else f"train:{trained}"
    model = str(context.work.path(str(final_folder(name, training, seed))))
    if student.kind in RE_RANKS:
        yield Stage(
            f"search:{trained}",
            run=partial(rerank_with_student, context, trained, model),
            outputs=(f"runs/{trained}.trec",),
            settings=student.max_length,
            needs=("candidates", made),
            label=f"search:{label}",
        )
        return
    dense = student.searched_as == "dense"
    spec = load_spec(config.index) if dense else spec_for(student.searched_as)
    for width in (None, *(config.widths if dense else [])):
        system, label = named(f"{base}@{width}" if width else base)
        yield Stage(
            f"search:{system}",
            run=partial(index_and_search, context, system, model, width),
            outputs=(f"indexes/{system}", f"runs/{system}.trec"),
            settings=[spec.as_dict(), width, student.max_length, config.depth],
            needs=("queries", made),
            label=f"search:{label}",
        )


def _result_stages(context: RunContext) -> Iterator[Stage]:
    """Measure, evaluate and report: once for each `results` of the workspace."""
    config, results = context.config, RunResults(context)
    others = ("search:bm25", "search:encoder", "teacher")
    timed = [f"search:{context.run_names(system)[0]}" for system in config.systems]
    students = [f"search:{name}" for s in config.systems for name in context.run_names(s)]
    yield Stage(
        results.stage("measure"),
        run=partial(measure_latency, context),
        outputs=(),
        settings=None,
        needs=(*others, *timed),
    )
    yield Stage(
        results.stage("evaluate"),
        run=results.evaluate,
        outputs=(results.file("results.json"),),
        settings=[config.measures, config.compare, versions().get("retrieval_kd")],
        needs=(results.stage("measure"), *students),
    )
    yield Stage(
        results.stage("report"),
        run=results.report,
        outputs=(results.file("report.html"),),
        settings=[config.name, versions().get("retrieval_kd"), REPORT_FORMAT],
        needs=(results.stage("evaluate"),),
    )


def _score_stages(config: Config, stage: TrainingStage) -> list[str]:
    """The stages that decide the teacher scores a training stage trains on."""
    if not stage.uses_scores:
        return []
    named = [f"try:{member}" for member in stage.named_teachers(config.teacher.members)]
    own_weights = stage.teachers and config.teacher.fusion == "z_scores"
    return named if own_weights else [*named, "weights"]


def _scores_key(config: Config, stage: TrainingStage) -> Any:
    """What decides a training stage's scores besides the members themselves and the weights."""
    if not stage.uses_scores:
        return None
    members, aggregate = config.teacher.members, config.teacher.aggregate
    one_by_one = any(term.asks_members for term in stage.objective)
    return [
        members if one_by_one else len(members) > 1,  # one member's raw scores, or z-scores
        {name: aggregate.get(name) for name in stage.named_teachers(members)},
    ]


def _model_key(spec: str, server: ServerSettings | None = None) -> list[Any]:
    """Digest of a teacher's model or what its server is sent, and of files its options name."""
    parsed = parse_spec(spec)
    options = (parsed.options.get(name) for name in ("prompt", "answers"))
    files = [digest_file(name) for name in options if name and Path(name).is_file()]
    if server is not None:
        return [parsed.model, *server.cache_key(), *files]
    return files if parsed.kind in WITHOUT_MODEL else [model_digest(parsed.model), *files]
