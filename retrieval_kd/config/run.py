"""The configuration of `rkd run`: one pydantic model per part, every field described.

The parts about queries, teachers and training are in `queries.py`, `teacher.py` and `training.py`.
`rkd run --schema` prints all as JSON Schema; an unknown key is an error that names the nearest
known one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from retrieval_kd.config.methods import Method
from retrieval_kd.config.queries import Splits, Unlabelled
from retrieval_kd.config.student import Student, check_layer_choice
from retrieval_kd.config.teacher import Teacher
from retrieval_kd.config.training import Training, TrainingStage
from retrieval_kd.config.training_checks import check_cached, check_merge, check_scores
from retrieval_kd.errors import InputError, did_you_mean, log
from retrieval_kd.metrics.names import parse_measures
from retrieval_kd.schema import (
    Dimensions,
    Part,
    Seed,
    apply_overrides,
    read_extended,
    validate,
)
from retrieval_kd.students.options import SAVED_AS, STARTS, UNCUT
from retrieval_kd.targets import FITTED_ON_DEV
from retrieval_kd.training.trainer.settings import TrainSettings

REFERENCES = ("bm25", "encoder", "teacher")  # the systems of a run that are no students
ENCODERS = ("dense", "sparse", "multi_vector")  # teachers that read documents as students do


class FirstStage(Part):
    """Where candidates come from."""

    with_: str = Field("bm25", alias="with", description="bm25, a MODEL, or A+B for their fusion")
    depth: int = Field(50, ge=2, description="candidates per query (documents)")


class Config(Part):
    """Everything `rkd run` does: teacher → students → indexes → evaluation → report."""

    name: str = Field(description="title of the report")
    collection: str = Field(description="BEIR folder or zip, ir_datasets ID, or python-api")
    out: str = Field(description="folder for all outputs")
    results: str = Field(
        "",
        description="folder in `out` for results and report; with it several configurations may "
        "share one `out` and the stages they have in common",
    )
    method: Method | None = Field(None, description="the published method that this file is")
    encoder: str = Field(description="MODEL to evaluate beside the students, untrained")
    splits: Splits = Field(Splits(), description="queries")
    unlabelled: Unlabelled | None = Field(None, description="queries without judgments")
    first_stage: FirstStage = Field(FirstStage(), description="candidates")
    teacher: Teacher = Field(description="the teachers whose scores are distilled")
    student: Student = Field(description="the students before training")
    train: TrainSettings = Field(TrainSettings(), description="how students are trained")
    students: dict[str, Training] = Field(description="students by name")
    compare: tuple[str, str] = Field(
        ("distilled", "labels"),
        description="the main comparison: a student and its baseline, which may also be bm25, "
        "encoder (the untrained one) or teacher",
    )
    seeds: list[Seed] = Field(
        [0], min_length=1, description="each student is trained once per seed"
    )
    index: str = Field("indexes/flat.yaml", description="index specification for the students")
    widths: list[Dimensions] = Field(
        [],
        description="numbers of dimensions: dense students are also searched with only their first "
        "ones, each time as a system of its own, NAME@WIDTH (Matryoshka)",
    )
    depth: int = Field(100, ge=10, description="documents per query in runs (documents)")
    measures: list[str] = Field(
        ["ndcg@10", "mrr@10", "recall@100"], description="measures; the first one is compared"
    )

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.student.start is not None:
            raise ValueError("student.start: only a student in `students` starts from another one")
        for at, (name, training) in enumerate(self.students.items()):
            try:
                self._check_start(training, list(self.students)[:at])
            except ValueError as error:
                raise ValueError(f"students.{name}: {error}") from error
        student, baseline = self.compare
        systems = [*REFERENCES, *self.systems]
        for name, known, are in (
            (student, list(self.systems), "students:"),
            (baseline, systems, "the baseline is one of"),
        ):
            if name not in known:
                default = "" if "compare" in self.model_fields_set else ", as it does by default"
                near = did_you_mean(name, known)
                problem = f"compare names {name!r}{default}; {are} {', '.join(known)}"
                raise ValueError(f"{problem}; {near}" if near else problem)
        if student == baseline:
            raise ValueError(f"compare names {student!r} twice: name another baseline")
        cut = [f"{name}@{width}" for name in self.students for width in self.widths]
        merged = [merged_system(n) for n, t in self.students.items() if t.merged_with == "seeds"]
        reserved = {*REFERENCES, *cut, *merged}.intersection(self.students)
        if reserved:
            raise ValueError(f"{reserved.pop()!r} is already the name of another system")
        for name, values in {"seeds": self.seeds, "widths": self.widths}.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {values} has one twice: it would count as two")
        if self.splits.train is None:
            self._check_unjudged()
        for name, training in self.students.items():
            try:
                self._check_training(training)
            except (ValueError, InputError) as error:
                raise ValueError(f"students.{name}: {error}") from error
        return self

    def _check_start(self, training: Training, earlier: Sequence[str]) -> None:
        """Refuse another student to start from that this kind cannot, or that comes later."""
        start = training.student.get("start")
        if start is None:
            return
        if "base" in training.student:
            raise ValueError("base and start both say what it is made from: leave one out")
        if start not in earlier:
            where = "comes later in the file" if start in self.students else "is no student"
            problem = f"start {start!r} {where}; students before it: {', '.join(earlier) or 'none'}"
            near = did_you_mean(start, earlier)
            raise ValueError(f"{problem}; {near}" if near else problem)
        if training.student.get("layers") is not None:
            raise ValueError(f"it has the layers of its start, {start}: leave `layers` out")
        kind = self.student_for(training).kind
        other = self.student_for(self.students[start]).kind
        saved = SAVED_AS.get(other, other)
        if saved not in STARTS.get(kind, ("dense", kind)):
            raise ValueError(f"a {kind} student cannot start from {start}, a {other} one")

    def _check_training(self, training: Training) -> None:
        """Refuse training settings that are impossible together with the common settings."""
        student = self.student_for(training)
        if student.max_length != self.student.max_length:
            raise ValueError("all students read the same text: max_length is the common one")
        has_dev = self.splits.dev is not None
        check_merge(training.merge, student.kind, has_dev, len(self.seeds))
        if self.splits.train is None:
            check_layer_choice(student, has_dev)
        for stage in training.all_stages:
            for seed in self.seeds:
                settings = self.train_settings(training, stage, seed=seed)
                check_cached(stage, settings.mini_batch_size, student.kind)
            check_scores(stage, self.teacher.members, student.kind, student.query)

    def _check_unjudged(self) -> None:
        """Refuse what needs judgments in a run without a train split."""
        if self.unlabelled is None or self.unlabelled.is_left_over:
            raise ValueError(
                "without splits.train, set unlabelled.kind to sentences or titles, "
                "or unlabelled.log"
            )
        if self.teacher.fit is not None:
            raise ValueError("without splits.train, no teacher can be fine-tuned: no teacher.fit")
        if self.teacher.fusion in FITTED_ON_DEV and self.splits.dev is None:
            raise ValueError(f"fusion {self.teacher.fusion} is fitted on judgments: set splits.dev")
        for name, training in self.students.items():
            for stage in training.all_stages:
                labels = [t.label for t in stage.objective if t.learns_from == "labels"]
                fitted = [key for key, teacher in stage.live.items() if teacher.fit is not None]
                needing = [*labels, *fitted, *(["confused"] if stage.confused else [])]
                if needing:
                    problem = f"students.{name}: {needing[0]} needs judgments: set splits.train"
                    raise ValueError(problem)
                unread = not stage.uses_unlabelled and set(stage.texts) <= {"queries"}
                if unread or not stage.learns_unjudged:
                    raise ValueError(f"students.{name}: a stage has no query to train on")

    @field_validator("measures")
    @classmethod
    def _measures(cls, names: list[str]) -> list[str]:
        return parse_measures(names)

    @property
    def systems(self) -> dict[str, str]:
        """The systems that are students, in the order of tables: system name → student name."""
        systems: dict[str, str] = {}
        for name, training in self.students.items():
            student = self.student_for(training)
            can_be_cut = student.searched_as == "dense" and student.kind not in UNCUT
            widths = self.widths if can_be_cut else []
            merged = [merged_system(name)] if training.merged_with == "seeds" else []
            for system in [name, *merged]:
                systems |= {system: name, **{f"{system}@{width}": name for width in widths}}
        return systems

    @property
    def store(self) -> str:
        """The folder of the teachers' scores, in `out` unless it is absolute."""
        return str(Path(self.teacher.store).resolve()) if self.teacher.store else "scores"

    def max_length_for(self, kind: str) -> int | None:
        """Tokens that a teacher of this kind reads; None where the teacher's options set it."""
        if kind == "pointwise":
            return self.teacher.max_length
        return self.student.max_length if kind in ENCODERS else None

    def student_for(self, training: Training) -> Student:
        """Return the common student with the training's own settings.

        One that starts from another student has the `base` of that one, and all of its layers.
        """
        common, start = self.student.model_dump(), training.student.get("start")
        if start in self.students:
            common |= {"base": self.student_for(self.students[start]).base, "layers": None}
        return validate(Student, {**common, **training.student})

    def train_settings(
        self, training: Training, stage: TrainingStage, *, seed: int
    ) -> TrainSettings:
        """Return the common settings with the student's own, the stage's own, and the seed."""
        return training.train_settings(stage, self.train.model_copy(update={"seed": seed}))


def merged_system(student: str) -> str:
    """Return the name of the system that is the average of a student's seeds."""
    return f"{student}-merged"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and what it extends, apply `key=value` overrides, check everything.

    A student set to null, as in `students.labels=null`, is left out. Overrides that a
    student's own setting shadows are warned of.

    Raises:
        InputError: naming the file, the key and the nearest known key.
    """
    values = read_extended(path)
    known = list(values.get("students") or {})
    values = apply_overrides(values, overrides)
    students = values.get("students")
    if isinstance(students, dict):
        for name in [name for name, own in students.items() if own is None and name not in known]:
            remedy = did_you_mean(name, known) or f"students: {', '.join(known)}"
            raise InputError(f"no student {name!r} to leave out", file=path, remedy=remedy)
        values["students"] = {name: own for name, own in students.items() if own is not None}
    config = validate(Config, values, path)
    for sentence in shadowed_overrides(config, overrides):
        log.warning("%s", sentence)
    return config


def shadowed_overrides(config: Config, overrides: Sequence[str]) -> list[str]:
    """Say which overrides of `train` a student or a stage shadows by a setting of its own.

    Example of a sentence: train.steps=2 does not reach students.prod.stages.0, whose own is 20;
    students.prod.stages.0.train.steps=2 does
    """
    sentences = []
    for override in overrides:
        key, _, value = override.partition("=")
        *owner, part, setting = ["", *key.strip().split(".")]
        for name, training in config.students.items():
            own = {f"students.{name}.stages.{n}": s.train for n, s in enumerate(training.stages)}
            if [part, *owner] == ["train", ""]:
                common = getattr(config.train, setting, None)
                own = {f"students.{name}": training.train, **own}
            elif [part, *owner] == ["train", "", "students", name]:
                common = training.train.get(setting)
            else:
                continue
            sentences += [
                f"{override} does not reach {where}, whose own is {own_train[setting]}; "
                f"{where}.train.{setting}={value} does"
                for where, own_train in own.items()
                if setting in own_train and own_train[setting] != common
            ]
    return sentences
