"""The configuration of a student's training: its stages, and checks that they fit together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_kd.schema import Layer, Part, Share, as_value_error, check_weights, validate
from retrieval_kd.students.options import FIXED, PARTS, RE_RANKS, TABLES
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.training.objective.score_names import POSITIVE, STORED, ScoreName
from retrieval_kd.training.objective.term_checks import (
    check_for_collection,
    check_for_pairs,
    check_for_tables,
    check_for_texts,
)
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


class TrainingStage(Part):
    """One stage of a student's training."""

    objective: list[Term] = Field(description="weighted sum of objectives")
    teachers: dict[str, float] = Field(
        {}, description="weights of the teachers in this stage; by default those chosen on dev"
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

    @field_validator("objective")
    @classmethod
    def _distinct(cls, terms: list[Term]) -> list[Term]:
        return check_distinct(terms)

    @model_validator(mode="after")
    def _check_live_and_weights(self) -> TrainingStage:
        _check_live(self.live, self.objective)
        if self.teachers:
            check_weights(list(self.teachers.values()), "teachers: ")
        return self

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
            raise ValueError("give either `objective` or `stages`")
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


def check_merge(merge: Merge | None, kind: str, has_dev: bool, seeds: int = 1) -> None:
    """Refuse a share that dev queries must choose and cannot, and seeds that are only one."""
    if merge is not None and merge.with_ == "seeds" and seeds < 2:
        raise ValueError("merge: there is one seed, and nothing to average it with: set `seeds`")
    if merge is None or merge.share != "dev":
        return
    if kind in RE_RANKS:
        raise ValueError(f"merge.share: a {kind} student is not tried on dev: give a number")
    if not has_dev:
        raise ValueError("merge.share: dev is chosen on dev queries: set a dev split, or a number")


def check_cached(stage: TrainingStage, mini_batch_size: int | None, kind: str) -> None:
    """Refuse cached gradients where no gradient would reach the student's representations."""
    if mini_batch_size is None:
        return
    if kind in RE_RANKS:
        check_uncached(mini_batch_size)
    if all(_trains_only_live(term, stage) for term in stage.objective):
        raise ValueError(
            "mini_batch_size: every objective of this stage trains a live model and none the "
            "student, whose gradients alone are cached; leave it out, or train the student too"
        )


def _trains_only_live(term: Term, stage: TrainingStage) -> bool:
    trained = [*term.students, *(term.teachers if term.joint else [])] or [ScoreName("score")]
    return all(score.source in stage.live for score in trained)


def check_scores(
    stage: TrainingStage, members: Sequence[str], kind: str, query: str | None = None
) -> None:
    """Refuse objectives and names of scores that a stage does not have."""
    if kind in RE_RANKS:
        _check_re_ranks(stage)
    else:
        check_for_texts(stage.objective, kind, query)
        check_for_collection(stage.objective, kind in FIXED)
    if kind in TABLES:
        check_for_tables(stage.objective, kind)
        if stage.live:
            raise ValueError(f"a {kind} student trains without any transformer: no `live`")
    check_vectors(stage.objective, kind)
    for name in stage.teachers:
        if name not in members:
            raise ValueError(f"no teacher {name!r}; choose one of {', '.join(members)}")
    _check_pairs(stage, members)
    sources = ["score", STORED, POSITIVE, *PARTS.get(kind, ()), *stage.live]
    words = "sparse" if kind == "multi_function" else "score"  # the vector over the vocabulary
    for term in stage.objective:
        if term.kind == "regulariser" and term.student != words:
            raise ValueError(f"{term.name} of a {kind} student needs `student: {words}`")
        for score in term.scores:
            if score.member is not None and score.member >= len(members):
                raise ValueError(f"{score}: there are {len(members)} teachers, counted from 0")
            of_pairs = term.pairs_of is not None and score in term.teachers
            is_exit = ScoreName(score.source).exit is not None
            if score.source not in sources and not of_pairs and not is_exit:
                raise ValueError(
                    f"no scores named {str(score)!r}; choose one of {', '.join(sources)}"
                )


def _check_re_ranks(stage: TrainingStage) -> None:
    """Refuse what needs a search, or scores of other queries' candidates."""
    check_for_pairs(stage.objective)
    searching = [n for n in ("live", "refresh", "confused", "select") if getattr(stage, n)]
    if searching:
        raise ValueError(
            f"a cross-encoder student cannot use {searching[0]!r}: it only re-ranks its own "
            "query's candidates"
        )


def check_vectors(terms: Sequence[Term], kind: str) -> None:
    """Refuse objectives on one vector per text for a student that has one per token."""
    for term in terms if kind == "multi_vector" else ():
        if term.kind in ("vectors", "regulariser") or "policy" in term.takes:
            raise ValueError(
                f"{term.name} reads one vector per text, and a multi_vector student has one per "
                "token: use an objective on scores, or a different kind of student"
            )


def _check_pairs(stage: TrainingStage, members: Sequence[str]) -> None:
    """Refuse answers about pairs of a teacher that is not pairwise, or of several teachers."""
    numbers = {term.pairs_of for term in stage.objective if term.pairs_of is not None}
    if len(numbers) > 1:
        raise ValueError("a stage learns the pairs of one teacher: put them in two stages")
    for number in numbers:
        if number < len(members) and parse_spec(members[number]).kind != "pairwise":
            raise ValueError(
                f"pairs:{number} is {members[number]}, which is not a pairwise teacher"
            )
