"""`rkd run`: the order of the stages, what each depends on, and what is left at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import Teacher
from retrieval_kd.config.training import TrainingStage
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_file, digest_json
from retrieval_kd.hardware import dtype_name, fast_dtype, versions
from retrieval_kd.indexing.spec import load_spec, spec_for
from retrieval_kd.models.load import model_digest
from retrieval_kd.pipeline.context import PARTS, RunContext
from retrieval_kd.pipeline.latency import measure_latency
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
from retrieval_kd.pipeline.students import student_folders, train_one
from retrieval_kd.retrieval.lucene import is_lucene
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.teachers.kinds import WITHOUT_MODEL
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.workspace import Stage, Workspace


def plan(config: Config) -> Workspace:
    """All stages of a configuration, none of them run. The collection is opened (and cached)."""
    work = Workspace(config.out)
    context = RunContext(config, work)
    collection = context.collection
    if config.splits.train not in collection.splits:
        raise InputError(
            f"collection {config.collection} has no split {config.splits.train!r} to train on; "
            f"it has {', '.join(collection.splits)}",
            remedy="name the one to train on (splits.train=NAME), never the one that is tested; if "
            "there is only one, move some of its judgments to qrels/train.tsv",
        )
    for split in filter(None, (config.splits.train, config.splits.dev, config.splits.test)):
        collection.qrels(split)  # a split that is not there is said before anything runs
    add = partial(_add, work)
    length = config.student.max_length
    unlabelled = config.unlabelled.model_dump() if config.unlabelled else None

    add(
        "queries",
        partial(choose_queries, context),
        tuple(f"queries/{part}.json" for part in PARTS),
        [
            collection.digest(),
            [collection.qrels_digest(s) for s in collection.splits],
            config.splits.model_dump(),
            unlabelled,
        ],
    )
    add(
        "candidates",
        partial(retrieve_candidates, context),
        tuple(f"candidates/{part}.json" for part in PARTS),
        [config.first_stage.model_dump(), _models_in(config.first_stage.with_), length],
        "queries",
    )
    if config.teacher.fit:
        fit = config.teacher.fit
        add(
            "fit-teacher",
            partial(fine_tune_teacher, context),
            ("teacher/training.json",),
            [*_model_of(fit.base), fit.cache_key(), config.teacher.max_length],
            "candidates",
        )
    ensemble = context.ensemble
    for verb, parts in (("try", ["dev"]), ("score", ["train", "unlabelled", "test"])):
        asked = []
        for member in ensemble.members:
            fitted = member == config.teacher.fitted
            told = [] if fitted else [member, _model_of(member, config.teacher)]
            add(
                f"{verb}:{member}",
                partial(ensemble.score, member, parts),
                ("scores",),
                [told, config.teacher.max_length, length],
                *(["candidates"] if verb == "try" else ["weights"]),
                *(["fit-teacher"] if fitted else []),
            )
            asked.append(f"{verb}:{member}")
        if verb == "try":  # who is worth asking is decided on dev, before the rest is paid for
            how = [config.teacher.weights, *_fusion(config.teacher)]
            add("weights", ensemble.tune, ("teacher.json",), how, *asked)
    add("teacher", partial(rerank_with_teacher, context), ("runs/teacher.trec",), [], *asked)
    add(
        "search:bm25", partial(search_bm25, context), ("runs/bm25.trec",), [config.depth], "queries"
    )
    spec = load_spec(config.index).as_dict()
    _add_search(
        add, context, "encoder", config.encoder, [model_digest(config.encoder), spec, length]
    )

    systems = ["bm25", "encoder", "teacher"]
    searches = ["search:bm25", "search:encoder", "teacher"]
    for name, training in config.students.items():
        student = config.student_for(training)
        start = [model_digest(student.base), student.as_dict()]
        re_ranks = student.kind in RE_RANKS
        searched = student.searched_as
        of_kind = spec if re_ranks or searched == "dense" else spec_for(searched).as_dict()
        for seed in config.seeds:
            system = f"{name}-seed{seed}"
            before = "teacher"
            for number, lesson in enumerate(training.all_stages):
                folder = student_folders(name, training, seed)[number]
                settings = config.train_settings(training, lesson, seed=seed)
                # what is new is only told where it is used: older runs keep their keys
                new = [n for n in ("judged", "denoised") if getattr(lesson, n) is None]
                taught = lesson.model_dump(exclude={"student", *new})
                for live in taught["live"].values():
                    if live["fit"] is None:
                        del live["fit"]
                share = unlabelled if draws_unlabelled(config.unlabelled, lesson) else None
                stage = f"train:{folder.name}"
                add(
                    stage,
                    partial(train_one, context, name, training, seed, number),
                    (f"{folder}/training.json",),
                    [start, settings.model_dump(), taught, _learnt(lesson), share],
                    before,
                    about=f"{settings.steps} steps of {settings.batch_queries} queries × "
                    f"{settings.slate_size} documents",
                )
                before = stage
            model = str(work.path("students", system))
            if re_ranks:
                again = partial(rerank_with_student, context, system, model)
                needed = ("candidates", f"train:{system}")
                add(f"search:{system}", again, (f"runs/{system}.trec",), [length], *needed)
            else:
                _add_search(add, context, system, model, [of_kind, length], f"train:{system}")
            systems.append(system)
            searches.append(f"search:{system}")
            for width in config.widths if searched == "dense" else []:
                cut, trained = f"{name}@{width}-seed{seed}", f"train:{system}"
                narrow = {**spec, "dimensions": width}
                _add_search(add, context, cut, model, [narrow, length], trained, width=width)
                searches.append(f"search:{cut}")
    summary = RunResults(context)
    measure, evaluate, report = (summary.stage(s) for s in ("measure", "evaluate", "report"))
    add(measure, partial(measure_latency, context), (), [], *searches)
    add(
        evaluate,
        summary.evaluate,
        (summary.file("results.json"),),
        [config.measures, list(config.compare), versions().get("retrieval_kd")],
        measure,
    )
    add(
        report,
        summary.report,
        (summary.file("report.html"),),
        [config.name, versions().get("retrieval_kd")],
        evaluate,
    )
    return work


def run(
    config: Config, before: Callable[[Stage, bool, str], None] = lambda stage, done, number: None
) -> RunResults:
    """Run what is not done and give what can be printed at the end."""
    work = plan(config)
    work.execute(before)
    return RunResults(RunContext(config, work))


def _add(
    work: Workspace,
    name: str,
    function: Callable[[], dict[str, Any] | None],
    outputs: tuple[str, ...],
    settings: Any,
    *needs: str,
    about: str = "",
) -> None:
    # The type that models compute in changes every score, so it is part of every key.
    told = digest_json([settings, dtype_name(fast_dtype())])
    work.add(Stage(name, function, outputs, told, needs, about))


def _add_search(
    add: Callable[..., None],
    context: RunContext,
    system: str,
    model: str,
    told: Any,
    *needs: str,
    width: int | None = None,
) -> None:
    add(
        f"search:{system}",
        partial(index_and_search, context, system, model, width),
        (f"indexes/{system}", f"runs/{system}.trec"),
        [told, context.config.depth],
        "queries",
        *needs,
    )


def _learnt(lesson: TrainingStage) -> list[str]:
    """Digests of the models whose vectors or states are learnt, and of live teachers."""
    vectors = [term.teacher for term in lesson.objective if term.learns_model]
    live = [teacher.model for teacher in lesson.live.values() if teacher.model != "start"]
    return [model_digest(model) for model in [*vectors, *live]]


def _fusion(teacher: Teacher) -> list[Any]:
    """How answers become scores and teachers one, where that is not the default."""
    calibration = [teacher.calibration] if teacher.fusion == "calibrated" else []
    aggregate = [teacher.aggregate] if teacher.aggregate else []
    return aggregate + ([] if teacher.fusion == "z_scores" else [teacher.fusion, *calibration])


def _model_of(member: str, teacher: Teacher | None = None) -> list[Any]:
    """Digest of a teacher's model, or how one on a server is asked, and of files it is told by."""
    spec = parse_spec(member)
    named = [spec.options[name] for name in ("prompt", "answers") if name in spec.options]
    files = [digest_file(name) for name in named if Path(name).is_file()]
    if teacher and teacher.server and member in teacher.served:
        return [spec.model, *teacher.server.cache_key(), *files]
    return files if spec.kind in WITHOUT_MODEL else [model_digest(spec.model), *files]


def _models_in(retriever: str) -> list[str]:
    """Digests of the models that a first stage names."""
    parts = [retriever] if Path(retriever).is_dir() else map(str.strip, retriever.split("+"))
    return [
        model_digest(part) for part in parts if part not in WITHOUT_MODEL and not is_lucene(part)
    ]
