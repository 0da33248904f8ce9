"""Trains one student with one seed, stage after stage, on the targets of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retrieval_kd.config.run import merged_system
from retrieval_kd.config.student import LayerChoice, Student
from retrieval_kd.config.training import LiveTeacher, Training, TrainingStage
from retrieval_kd.data.runs import Run
from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import Drops
from retrieval_kd.files import read_json
from retrieval_kd.models.load import model_digest
from retrieval_kd.pipeline.context import RunContext, seeded
from retrieval_kd.pipeline.ensemble import Ensemble
from retrieval_kd.pipeline.pools import stage_pools
from retrieval_kd.pipeline.texts import stage_texts
from retrieval_kd.students.make import check_kept, check_widths, make_student
from retrieval_kd.training.batches.pools import Pools
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.choose_layers import choose_layers
from retrieval_kd.training.fit_teacher import fit_teacher
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.live_models import LiveModel, open_live
from retrieval_kd.training.merge import average, merge_with_start
from retrieval_kd.training.train_student import train_student
from retrieval_kd.training.trainer.card import describe_stages
from retrieval_kd.training.trainer.checkpoints import RECORD
from retrieval_kd.training.trainer.curve import DevTask, build_dev_task
from retrieval_kd.training.trainer.settings import TrainSettings


@dataclass(frozen=True)
class StudentTraining:
    """The training of one student with one seed."""

    training: Training
    start: Student
    settings: TrainSettings
    ensemble: Ensemble
    out: Path
    dev: DevTask | None = None
    max_length: int | None = None
    widths: Sequence[int] = ()

    def train_stage(self, stage_index: int) -> dict[str, Any]:
        """Train stage `stage_index` (from 0), starting from the previous stage's student."""
        stage, drops = self.training.all_stages[stage_index], Drops()
        folders = stage_folders(self.out, len(self.training.all_stages))
        folder, documents = folders[stage_index], self.ensemble.collection.documents
        base = str(folders[stage_index - 1]) if stage_index else self.start.base
        settings = self.training.train_settings(stage, self.settings)
        live_folder = folder.with_name(f"{folder.name}.live")
        drawn = self._drawn(stage, base, settings, live_folder, drops)
        student = self._made_from(base, None if stage_index else self.layers)
        if self.start.searched_as == "dense":
            check_widths(int(student.get_embedding_dimension()), self.widths)
        job = TrainingJob(
            student,
            documents=documents,
            terms=stage.objective,
            settings=settings,
            out=folder,
            dev=self.dev,
            teacher_length=self.max_length,
            made={"layers": self.choice} if self.choice else {},
            **drawn,
        )
        record = train_student(job)
        describe_stages(folder, [read_json(f / RECORD) for f in folders[: stage_index + 1]])
        fits = [live_folder / name / RECORD for name, t in stage.live.items() if t.fit is not None]
        seconds = record["seconds"] + sum(read_json(path)["seconds"] for path in fits)
        return {**record, "seconds": seconds, "drops": drops.summary()}

    def _drawn(
        self,
        stage: TrainingStage,
        base: str,
        settings: TrainSettings,
        live_folder: Path,
        drops: Drops,
    ) -> dict[str, Any]:
        """Return what of a job says what is drawn: texts, or pools with their groups and teachers.

        Args:
            base: MODEL of the student as the stage starts.
        """
        if stage.texts:
            rows = settings.steps * settings.batch_queries
            return {"pools": [], "texts": stage_texts(stage, self.ensemble, rows, drops)}
        pools, groups = stage_pools(stage, self.ensemble, base, drops, max_length=self.max_length)
        first, end, _ = groups["train"]
        documents = self.ensemble.collection.documents
        live = {
            name: live_teacher(
                teacher, base, pools[first:end], documents, settings, live_folder / name
            )
            for name, teacher in stage.live.items()
        }
        return {"pools": pools, "groups": groups, "live": live}

    @property
    def layers(self) -> list[int] | None:
        """The layers of the base that are kept; None: all."""
        if isinstance(self.start.layers, LayerChoice):
            return list(self.choice["kept"])
        return self.start.layers

    @cached_property
    def choice(self) -> dict[str, Any]:
        """How dev queries chose the layers, see `choose_layers`; empty if they are named."""
        start, layers = self.start, self.start.layers
        if not isinstance(layers, LayerChoice):
            return {}
        assert self.dev is not None
        key: list[Any] = [model_digest(start.base), start.model_dump(exclude={"base", "layers"})]
        if start.query is not None:  # whose weights are counted in all documents
            key.append(self.ensemble.collection.documents.digest)

        def make(kept: list[int]) -> Any:
            return self._made_from(start.base, kept, seed=0)

        count = check_kept(start.base, layers.keep)
        return choose_layers(make, count, layers.keep, self.dev, [*key, self.max_length])

    def merge(self) -> dict[str, Any]:
        """Average the trained student with its start; save it in `merged_folder(self.out)`."""
        assert self.training.merge is not None
        return merge_with_start(
            self.out,
            self._made_from(self.start.base, self.layers),
            self.start.base,
            self.training.merge.share,
            merged_folder(self.out),
            self.dev,
        )

    def _made_from(
        self, base: str, layers: Sequence[int] | None, *, seed: int | None = None
    ) -> Any:
        return make_student(
            base,
            self.start.kind,
            layers,
            max_length=self.max_length,
            dimensions=self.start.dimensions,
            seed=self.settings.seed if seed is None else seed,
            options=self.start.options,
            documents=self.ensemble.collection.documents,
            query=self.start.query,
        )


def train_one(
    context: RunContext, name: str, training: Training, seed: int, stage_index: int
) -> dict[str, Any]:
    """Train stage `stage_index` (from 0) of one student with one seed; return its record."""
    return _student_training(context, name, training, seed).train_stage(stage_index)


def merge_one(context: RunContext, name: str, training: Training, seed: int) -> dict[str, Any]:
    """Average one trained student with its start; return what was chosen."""
    return _student_training(context, name, training, seed).merge()


def merge_seeds(context: RunContext, name: str, training: Training) -> dict[str, Any]:
    """Average one student's trainings with all seeds; return the share of each."""
    seeds = context.config.seeds
    trained = [str(context.work.path(str(final_folder(name, training, seed)))) for seed in seeds]
    names = [f"the student of seed {seed}" for seed in seeds]
    out = context.work.path(str(final_folder(name, training, None)))
    average(trained, [1 / len(seeds)] * len(seeds), names, out)
    return {"share": 1 / len(seeds)}


def _student_training(
    context: RunContext, name: str, training: Training, seed: int
) -> StudentTraining:
    config, dev = context.config, context.queries("dev")
    first = Run("first", context.candidates("dev"))
    return StudentTraining(
        training,
        _start(context, training, seed),
        config.train.model_copy(update={"seed": seed}),
        context.ensemble,
        context.work.folder / student_folders(name, training, seed)[-1],
        dev=build_dev_task(context.collection, dev.texts, dev.qrels, first) if dev.texts else None,
        max_length=config.student.max_length,
        widths=config.widths,
    )


def _start(context: RunContext, training: Training, seed: int) -> Student:
    """Return how the student starts; one that starts from another has its folder as `base`."""
    student = context.config.student_for(training)
    if student.start is None:
        return student
    folder = final_folder(student.start, context.config.students[student.start], seed)
    return student.model_copy(update={"base": str(context.work.path(str(folder)))})


def stage_folders(out: Path, stages: int) -> list[Path]:
    """Return the folder that each stage's student is saved in; the last one is `out`.

    Example:
        >>> [folder.name for folder in stage_folders(Path("students/prod-seed0"), 2)]
        ['prod-seed0-stage1', 'prod-seed0']
    """
    return [*(out.with_name(f"{out.name}-stage{n}") for n in range(1, stages)), out]


def student_folders(name: str, training: Training, seed: int) -> list[Path]:
    """Return where a run keeps a student and those of its earlier stages, from the run's folder."""
    return stage_folders(Path("students", seeded(name, seed)), len(training.all_stages))


def merged_folder(out: Path) -> Path:
    """Return where the average of a trained student in `out` with its start is kept."""
    return out.with_name(f"{out.name}-merged")


def final_folder(name: str, training: Training, seed: int | None) -> Path:
    """Return where a run keeps the student that it searches with, from the run's folder.

    Without a seed it is the average of all.
    """
    if seed is None:
        return Path("students", merged_system(name))
    trained = student_folders(name, training, seed)[-1]
    return merged_folder(trained) if training.merged_with == "start" else trained


def live_teacher(
    teacher: LiveTeacher,
    start: str,
    judged: Sequence[Pool],
    documents: Texts,
    settings: TrainSettings,
    folder: Path,
) -> LiveModel:
    """Open a live teacher of a stage, and fine-tune it first if it has `fit`.

    Args:
        start: MODEL of the student as the stage starts, which is also the teacher `start`.
        judged: the stage's pools of train queries. A teacher with `fit` is fine-tuned on those that
            have a judged relevant document.
        settings: the settings of the stage.
        folder: where a fine-tuned teacher is saved. A finished one is not trained again.
    """
    model, layers = start if teacher.model == "start" else teacher.model, teacher.layers
    if teacher.fit is not None:
        relevant = Pools.of(pool for pool in judged if (pool.gains > 0).any())
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
