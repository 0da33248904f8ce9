"""Train the students of a run, one training stage at a time, with their live teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_kd.config.training import LiveTeacher, Training
from retrieval_kd.data.runs import Run
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import Drops
from retrieval_kd.files import read_json
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.pools import TrainingPools
from retrieval_kd.students.make import check_widths, make_student
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.live_models import LiveCrossEncoder, LiveEncoder, open_live
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.card import describe_stages
from retrieval_kd.training.trainer.checkpoints import RECORD
from retrieval_kd.training.trainer.curve import build_dev_task
from retrieval_kd.training.trainer.settings import TrainSettings


def student_folders(
    name: str, training: Training, seed: int, number: int
) -> tuple[str, str | None]:
    """Where a stage leaves its student, and where the one it starts from is (none: the base).

    The last stage's is the student itself; earlier ones are kept beside it.
    """
    last = len(training.all_stages) - 1
    names = [
        f"students/{name}-seed{seed}" + ("" if i == last else f"-stage{i + 1}")
        for i in range(last + 1)
    ]
    return names[number], names[number - 1] if number else None


def train_one(
    context: RunContext, name: str, training: Training, seed: int, number: int
) -> dict[str, Any]:
    """Train one student with one seed, one stage of it."""
    config, drops = context.config, Drops()
    stage = training.all_stages[number]
    folder, before = student_folders(name, training, seed, number)
    begin = config.student_for(training)
    start = str(context.work.path(before)) if before else begin.base
    source = TrainingPools(
        config, context.collection, context.ensemble, context.queries, context.candidates
    )
    pools, groups = source.of(stage, start, drops)
    settings = config.train_settings(training, stage, seed=seed)
    start_of_train, end_of_train, _ = groups["train"]
    live = {
        label: live_teacher(
            teacher,
            start,
            pools[start_of_train:end_of_train],
            context.collection.documents,
            settings,
            context.work.path(f"{folder}.live", label),
        )
        for label, teacher in stage.live.items()
    }
    student = make_student(
        start,
        begin.kind,
        None if before else begin.layers,
        max_length=begin.max_length,
        dimensions=begin.dimensions,
        seed=seed,
        options=begin.options,
    )
    if begin.searched_as == "dense":
        check_widths(student, config.widths)
    dev = context.queries("dev")
    task = build_dev_task(
        context.collection, dev.texts, dev.qrels, Run("first", context.candidates("dev"))
    )
    record = train_student(
        student,
        pools,
        context.collection.documents,
        stage.objective,
        settings,
        context.work.path(folder),
        dev=task,
        groups=groups,
        teacher_length=config.student.max_length,
        live=live,
    )
    folders = [student_folders(name, training, seed, n)[0] for n in range(number + 1)]
    stages = [read_json(context.work.path(each, RECORD)) for each in folders]
    describe_stages(context.work.path(folder), stages)
    fitted = [context.work.path(f"{folder}.live", label) for label in stage.live]
    before_it = [read_json(f / RECORD)["seconds"] for f in fitted if (f / RECORD).exists()]
    seconds = record["seconds"] + sum(before_it)
    return {**record, "seconds": seconds, "drops": drops.summary()}


def live_teacher(
    teacher: LiveTeacher,
    start: str,
    judged: Sequence[Pool],
    documents: Texts,
    settings: TrainSettings,
    folder: Path,
) -> LiveEncoder | LiveCrossEncoder:
    """Open a stage's live teacher.

    Args:
        start: MODEL of the student as the stage begins, which a teacher may be, too.
        judged: the stage's pools of train queries; a teacher with `fit` learns those first that
            have a judged relevant document.
        settings: of the stage.
        folder: where a teacher is kept that was fine-tuned first; not made again if it is there.
    """
    model, layers = start if teacher.model == "start" else teacher.model, teacher.layers
    if teacher.fit is not None:
        relevant = [pool for pool in judged if (pool.gains > 0).any()]
        fitting = teacher.fitting(seed=settings.seed)
        fit_teacher(model, relevant, documents, folder, layers=layers, settings=fitting)
        model, layers = str(folder), None
    return open_live(
        model,
        teacher.kind,
        layers=layers,
        trains=teacher.trains,
        max_length=settings.max_tokens,
        seed=settings.seed,
    )
