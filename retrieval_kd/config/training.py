"""The configuration of a student's training: its stages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from retrieval_kd.schema import Layer, Part, Share, as_value_error, check_weights, validate
from retrieval_kd.students.options import PARTS
from retrieval_kd.training.objective.terms import Term, check_distinct, parse_terms
from retrieval_kd.training.trainer.settings import FIT_DEFAULTS, TrainSettings, check_uncached


class LiveTeacher(Part):
    """A teacher that scores each batch during training, beside or instead of stored scores."""

    model: str = Field(description="MODEL; `start` is the student as the stage begins")
    kind: Literal["encoder", "multi_vector", "cross_encoder"] = Field(
        "encoder",
        description="encoder, multi_vector: scores all documents of the batch; cross_encoder: each "
        "query's slate",
    )
    layers: list[Layer] | None = Field(
        None, description="layers to keep, counted from 0; by default all"
    )
    trains: bool = Field(False, description="trained too, by the terms that name it as `student`")
    fit: dict[str, Any] | None = Field(
        None,
        description="a cross_encoder is first fine-tuned on the stage's judged queries, as "
        "`rkd fit-teacher` does; settings that differ from its defaults, such as {steps: 60}",
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
        """Return the settings of the fine-tuning before the stage."""
        return validate(
            TrainSettings, {**FIT_DEFAULTS.model_dump(), **(self.fit or {}), "seed": seed}
        )


class Select(Part):
    """Which queries a stage is trained on, by the scores of the student so far."""

    by: Literal["uncertainty", "divergence", "learnability"] = Field(
        description="uncertainty: of the student; divergence: from the teacher; learnability: hard "
        "for the student, easy for the teacher"
    )
    share: Share = Field(0.5, description="of the queries, those with the highest value")


class Denoised(Part):
    """Slates of candidates the teacher is sure of, mixed with slates of all (RocketQAv2)."""

    below: float = Field(description="a target below this is surely not relevant")
    above: float = Field(description="a target above this is surely relevant")
    share: Share = Field(0.5, description="of the judged queries' slates")

    @model_validator(mode="after")
    def _ordered(self) -> Denoised:
        if self.below > self.above:
            raise ValueError(f"below ({self.below}) must not be above {self.above}")
        return self


class Merge(Part):
    """The trained student averaged with models of the same architecture."""

    with_: Literal["start", "seeds"] = Field(
        "start",
        alias="with",
        description="start: the student before training (LM-Cocktail); seeds: those of all other "
        "seeds (model soups), as a system of its own, NAME-merged",
    )
    share: Share | Literal["dev"] = Field(
        0.5,
        description="of the trained student's weights; dev: the best of 0.3, 0.5, 0.7 and 1 on dev "
        "queries; not for seeds, which weigh the same",
    )

    @model_validator(mode="after")
    def _alike(self) -> Merge:
        if self.with_ == "seeds" and "share" in self.model_fields_set:
            raise ValueError("all seeds weigh the same: leave `share` out")
        return self


# settings of a stage about its queries' candidates and targets
OF_SLATES = (
    "teachers", "judged", "confused", "false_negatives", "denoised", "select", "live", "refresh",
)  # fmt: skip
TextKind = Literal["queries", "titles", "sentences", "documents"]


class TrainingStage(Part):
    """One stage of a student's training."""

    objective: list[Term] = Field(description="weighted sum of objectives")
    teachers: dict[str, float] = Field(
        {}, description="weights of the teachers in this stage; by default those chosen on dev"
    )
    texts: list[TextKind] = Field(
        [],
        description="go through these texts one by one, without slates, for objectives on a "
        "MODEL's vectors or states: queries (train and unlabelled ones), titles, sentences (two of "
        "each document), documents; all: the four",
    )
    judged: int | None = Field(
        None,
        ge=1,
        description="number of train queries whose judgments are used, drawn at random; the "
        "others have only teacher scores (queries); by default all",
    )
    confused: int | None = Field(
        None,
        ge=2,
        description="keep only judged queries whose relevant document the student so far ranks "
        "down to this depth, but not first (documents)",
    )
    false_negatives: float | None = Field(
        None,
        description="leave out unjudged candidates whose target is above the best judged one's, "
        "minus this (standard deviations, where several teachers are fused)",
    )
    denoised: Denoised | None = Field(
        None, description="draw a share of the slates from candidates that the teacher is sure of"
    )
    select: Select | None = Field(None, description="train on some of the queries only")
    live: dict[str, LiveTeacher] = Field({}, description="live teachers by the name that terms use")
    refresh: int | None = Field(
        None,
        ge=1,
        description="number of candidates per query that the student so far finds itself before "
        "the stage; the teacher scores those it has not seen (documents)",
    )
    uses_unlabelled: bool = Field(True, description="whether unlabelled queries are drawn")
    train: dict[str, Any] = Field(
        default_factory=dict, description="settings that differ from the common `train`"
    )

    @field_validator("objective", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return parse_terms(value) if isinstance(value, str) else value

    @field_validator("texts", mode="before")
    @classmethod
    def _all(cls, value: object) -> object:
        return list(get_args(TextKind)) if value == "all" else value

    @field_validator("objective")
    @classmethod
    def _distinct(cls, terms: list[Term]) -> list[Term]:
        return check_distinct(terms)

    @model_validator(mode="after")
    def _check_live_and_weights(self) -> TrainingStage:
        _check_live(self.live, self.objective)
        if self.teachers:
            check_weights(list(self.teachers.values()), "teachers: ")
        self._check_texts()
        return self

    def _check_texts(self) -> None:
        """Refuse what needs slates in a stage that goes through texts."""
        if not self.texts:
            return
        if len(set(self.texts)) < len(self.texts):
            raise ValueError(f"texts {self.texts} has one twice")
        for term in self.objective:
            if not term.learns_model or term.reads_texts:
                raise ValueError(
                    f"{term.label} needs queries with candidates, and a stage over texts has none: "
                    "use an objective on vectors or hidden_states, or leave `texts` out"
                )
        for name in OF_SLATES:
            if getattr(self, name) != TrainingStage.model_fields[name].get_default(
                call_default_factory=True
            ):
                raise ValueError(f"a stage over texts has no slates: leave {name!r} out")

    @property
    def needs_teacher_scores(self) -> bool:
        """Whether fused teacher scores are used: as targets, or to choose queries or candidates."""
        targets = any(term.learns_from == "teacher" for term in self.objective)
        chooses_queries = self.select is not None and self.select.by != "uncertainty"
        chooses_candidates = self.false_negatives is not None or self.denoised is not None
        return targets or chooses_queries or chooses_candidates

    @property
    def learns_unjudged(self) -> bool:
        """Whether the stage can train on queries without judgments."""
        return any(term.learns_from in ("teacher", "itself") for term in self.objective)

    @property
    def uses_scores(self) -> bool:
        """Whether stored scores are used: fused, or those of single teachers."""
        return self.needs_teacher_scores or any(term.asks_members for term in self.objective)

    def named_teachers(self, members: Sequence[str]) -> list[str]:
        """The stored teachers this stage names itself: by a weight, or by number in a term."""
        numbers = {number for term in self.objective for number in term.named_members}
        weights = self.teachers if self.needs_teacher_scores else {}
        return [m for number, m in enumerate(members) if weights.get(m) or number in numbers]

    @property
    def other_models(self) -> list[str]:
        """The MODELs this stage reads besides the student: imitated models, live teachers."""
        imitated = [term.teacher for term in self.objective if term.learns_model]
        live = [teacher.model for teacher in self.live.values() if teacher.model != "start"]
        return [*imitated, *live]

    def cache_key(self) -> Any:
        """Return what decides the training, except what Config resolves with common settings."""
        resolved = {"train", "uses_unlabelled"}
        return self.model_dump(mode="json", include=set(TrainingStage.model_fields) - resolved)

    @property
    def pairs_of(self) -> int | None:
        """The number of the stored teacher whose answers about pairs are targets, if any."""
        numbers = (term.pairs_of for term in self.objective)
        return next((number for number in numbers if number is not None), None)


class Training(TrainingStage):
    """One way to train the student; its key in `students` is its name in the report.

    Either one stage, with its settings given here, or several in `stages`, each of which starts
    from the student of the stage before.
    """

    objective: list[Term] = Field([], description="weighted sum of objectives, without `stages`")
    stages: list[TrainingStage] = Field(
        [], description="trained one after the other; instead of `objective`"
    )
    student: dict[str, Any] = Field(
        {}, description="settings that differ from the common `student`: kind, base, layers, …"
    )
    merge: Merge | None = Field(
        None,
        description="average the trained student's weights with those it started from, or with "
        "those of its other seeds",
    )

    @model_validator(mode="after")
    def _either(self) -> Training:
        if bool(self.objective) == bool(self.stages):
            raise ValueError("a student needs an `objective`, or `stages`, and not both")
        if not all(stage.objective for stage in self.all_stages):
            raise ValueError("each stage needs an `objective`")
        if self.stages:
            own = set(TrainingStage.model_fields) - {"objective", "train"}
            changed = [n for n in own if getattr(self, n) != TrainingStage.model_fields[n].default]
            if changed:
                raise ValueError(f"with `stages`, give {sorted(changed)[0]!r} in one of them")
        first = self.all_stages[0]
        if first.refresh or first.confused or first.select:
            raise ValueError("the first stage has no earlier student to find candidates or queries")
        return self

    @property
    def all_stages(self) -> list[TrainingStage]:
        """The stages in order; a training without `stages` is its own only stage."""
        return self.stages or [self]

    @property
    def merged_with(self) -> str | None:
        """What the trained student is averaged with: start, seeds, or None."""
        return self.merge.with_ if self.merge else None

    def train_settings(self, stage: TrainingStage, common: TrainSettings) -> TrainSettings:
        """The common settings with the training's own and the stage's own; the seed is common."""
        own = {**self.train, **stage.train, "seed": common.seed}
        return validate(TrainSettings, {**common.model_dump(), **own})


def _check_live(live: Mapping[str, LiveTeacher], terms: Sequence[Term]) -> None:
    """Refuse live teachers with a reserved name, and those that no term can use."""
    reserved = {
        "score",
        "stored",
        "positive",
        *(part for parts in PARTS.values() for part in parts),
    }
    for name in live:
        if name in reserved or not re.fullmatch(r"(?!exit\d+$)[\w-]+", name):
            raise ValueError(f"a live teacher cannot be called {name!r}: choose a different word")
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
