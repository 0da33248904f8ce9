"""The part of a configuration that says how a student is trained: its stages, live teachers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_kd.schema import Part, as_value_error, validate
from retrieval_kd.students.options import PARTS
from retrieval_kd.training.objective.parse import check_distinct, parse_terms
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.trainer.settings import FIT_DEFAULTS, TrainSettings, check_uncached


def check_live(live: Mapping[str, LiveTeacher], terms: Sequence[Term]) -> None:
    """Refuse live teachers whose names mean something else, or that no term can use as it says.

    Raises:
        ValueError: saying which.
    """
    meanings = {
        "score",
        "stored",
        "positive",
        *(part for parts in PARTS.values() for part in parts),
    }
    for name in live:
        if name in meanings or not re.fullmatch(r"(?!exit\d+$)[\w-]+", name):
            raise ValueError(f"a live teacher cannot be called {name!r}: choose another word")
        if not any(score.source == name for term in terms for score in term.scores):
            raise ValueError(
                f"no term names the live teacher {name!r} (a stage has `live` of its own)"
            )
    for term in terms:
        for name in [score.source for score in term.students if score.source in live]:
            if not live[name].trains:
                raise ValueError(f"{term.label}: {name!r} learns, so it needs `trains: true`")
            if live[name].kind == "cross_encoder" and term.candidates == "batch":
                raise ValueError(f"{term.label}: {name!r} scores slates only: candidates: slate")


class LiveTeacher(Part):
    """A teacher that scores the batch in the training step, beside or in place of stored scores."""

    model: str = Field(description="MODEL; `start` is the student as the stage begins")
    kind: Literal["encoder", "multi_vector", "cross_encoder"] = Field(
        "encoder",
        description="encoder, multi_vector: scores all documents of the batch; cross_encoder: each "
        "query's slate",
    )
    layers: list[int] | None = Field(None, description="layers to keep, from 0; none: all")
    trains: bool = Field(False, description="trained along, by the terms that name it as `student`")
    fit: dict[str, Any] | None = Field(
        None,
        description="a cross_encoder is first fine-tuned on the stage's judged queries, as by "
        "`rkd fit-teacher`; settings that differ from its own, such as {steps: 60}",
    )

    @model_validator(mode="after")
    def _fitted(self) -> LiveTeacher:
        if self.fit is not None:
            if self.kind != "cross_encoder":
                raise ValueError("fit: only a cross_encoder is fine-tuned first")
            if "seed" in self.fit:
                raise ValueError("fit: its seed is the student's: leave it out")
            as_value_error(lambda: self.fitting(seed=0))
            check_uncached(self.fitting(seed=0).mini_batch_size)
        return self

    def fitting(self, *, seed: int) -> TrainSettings:
        """How it is fine-tuned first."""
        return validate(
            TrainSettings, {**FIT_DEFAULTS.model_dump(), **(self.fit or {}), "seed": seed}
        )


class Select(Part):
    """Which queries a stage learns from, by what the student so far makes of them."""

    by: Literal["uncertainty", "divergence", "learnability"] = Field(
        description="uncertainty: of the student; divergence: from the teacher; learnability: hard "
        "for the student, easy for the teacher"
    )
    share: float = Field(0.5, gt=0, le=1, description="of the queries, those with the most")


class Denoised(Part):
    """Slates of sure candidates only, mixed with those of all candidates (RocketQAv2)."""

    below: float = Field(description="a target below this is surely not relevant")
    above: float = Field(description="a target above this is surely relevant")
    share: float = Field(0.5, gt=0, le=1, description="of the judged queries' slates")

    @model_validator(mode="after")
    def _ordered(self) -> Denoised:
        if self.below > self.above:
            raise ValueError(f"below ({self.below}) must not be above {self.above}")
        return self


class TrainingStage(Part):
    """One stage of a student's training."""

    objective: list[Term] = Field(description="weighted sum of objectives")
    teachers: dict[str, float] = Field(
        {}, description="weights of the teacher's members in this stage; none: those found on dev"
    )
    judged: int | None = Field(
        None,
        ge=1,
        description="use the judgments of so many train queries only, drawn by chance; the others "
        "teach what the teacher says of them, or nothing (queries); none: of all",
    )
    confused: int | None = Field(
        None,
        ge=2,
        description="keep only judged queries whose relevant document the student so far finds "
        "among so many, but not first (documents)",
    )
    false_negatives: float | None = Field(
        None,
        description="leave out unjudged candidates whose target is above the best judged one's, "
        "less this (standard deviations, where several teachers are fused)",
    )
    denoised: Denoised | None = Field(
        None, description="draw a share of the slates from candidates that the teacher is sure of"
    )
    select: Select | None = Field(None, description="learn from some of the queries only")
    live: dict[str, LiveTeacher] = Field({}, description="live teachers by the name that terms use")
    refresh: int | None = Field(
        None,
        ge=1,
        description="before the stage, the student so far finds this many candidates per query "
        "itself; the teacher scores those it has not seen (documents)",
    )
    uses_unlabelled: bool = Field(True, description="whether unlabelled queries are drawn")
    train: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ from the common `train`"
    )

    @field_validator("objective", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return parse_terms(value) if isinstance(value, str) else value

    @field_validator("objective")
    @classmethod
    def _distinct(cls, terms: list[Term]) -> list[Term]:
        return check_distinct(terms)

    @model_validator(mode="after")
    def _live_named(self) -> TrainingStage:
        check_live(self.live, self.objective)
        if self.teachers and (min(self.teachers.values()) < 0 or not any(self.teachers.values())):
            raise ValueError("teachers: weights must not be negative, and one must be above 0")
        return self

    @property
    def needs_teacher_scores(self) -> bool:
        """Whether the stored scores are wanted: to learn from, or to choose what is learnt."""
        chooses = self.select is not None and self.select.by != "uncertainty"
        learns = any(term.learns_from == "teacher" for term in self.objective)
        return learns or chooses or self.false_negatives is not None or self.denoised is not None

    @property
    def pairs_of(self) -> int | None:
        """Number of the stored teacher whose answers about pairs are learnt; none: no one's."""
        numbers = (term.pairs_of for term in self.objective)
        return next((number for number in numbers if number is not None), None)


class Training(TrainingStage):
    """One way to train the student; its key in `students` is its name in the report.

    Either one stage, its settings given right here, or several in `stages`, each of which goes on
    from the student that the one before left.
    """

    objective: list[Term] = Field([], description="weighted sum of objectives, without `stages`")
    stages: list[TrainingStage] = Field(
        [], description="one after the other, in place of `objective`"
    )
    student: dict[str, Any] = Field(
        {}, description="start that differs from the common `student`: kind, base, layers, …"
    )

    @model_validator(mode="after")
    def _either(self) -> Training:
        if bool(self.objective) == bool(self.stages):
            raise ValueError("give either `objective` or `stages`")
        if not all(stage.objective for stage in self.all_stages):
            raise ValueError("each stage needs an `objective`")
        if self.stages:
            own = set(TrainingStage.model_fields) - {"objective", "train"}
            given = [n for n in own if getattr(self, n) != TrainingStage.model_fields[n].default]
            if given:
                raise ValueError(f"with `stages`, give {sorted(given)[0]!r} in one of them")
        first = self.all_stages[0]
        if first.refresh or first.confused or first.select:
            raise ValueError("the first stage has no earlier student to find candidates or queries")
        return self

    @property
    def all_stages(self) -> list[TrainingStage]:
        """The stages in order."""
        return self.stages or [self]

    def train_settings(self, stage: TrainingStage, common: TrainSettings) -> TrainSettings:
        """The common settings with the training's own and the stage's own; the seed is common."""
        own = {**self.train, **stage.train, "seed": common.seed}
        return validate(TrainSettings, {**common.model_dump(), **own})
