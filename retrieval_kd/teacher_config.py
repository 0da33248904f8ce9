"""The part of a configuration that says who teaches: fine-tuned, fused, here or on a server."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from retrieval_kd.adapters import Lora, check_base
from retrieval_kd.errors import InputError
from retrieval_kd.lesson_checks import check_uncached
from retrieval_kd.schema import Part, as_value_error
from retrieval_kd.teacher_server import TeacherServer, check_served, served_by
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.teachers.spec_check import check_options
from retrieval_kd.training.settings import FIT_DEFAULTS, TrainSettings

AggregationName = Literal[
    "win_rate", "copeland", "bradley_terry",
    "reciprocal_rank", "borda", "discounted_rank", "plackett_luce",
]  # fmt: skip
FITTED, FITTED_DECODER = "cross-encoder", "decoder"  # names of teachers that are fine-tuned first


class FitTeacher(Part):
    """Fine-tuning of a teacher on judgments, before anything is scored."""

    base: str = Field(
        description="MODEL to start from, an encoder gets a new head; or yesno:MODEL, a decoder"
    )
    layers: list[int] | None = Field(None, description="layers to keep, from 0; none: all")
    lora: Lora | None = Field(
        None, description="of yesno:MODEL, train adapters and leave the model as it is"
    )
    train: TrainSettings = Field(FIT_DEFAULTS, description="how it is trained")

    @model_validator(mode="after")
    def _possible(self) -> FitTeacher:
        try:
            check_base(self.base, layers=self.layers, lora=self.lora)
        except InputError as error:
            raise ValueError(str(error)) from error
        check_uncached(self.train.mini_batch_size)
        return self

    @property
    def is_decoder(self) -> bool:
        """Whether it answers yes or no, rather than by a logit of its own."""
        return parse_spec(self.base).kind == "yesno"

    def told(self) -> dict[str, Any]:
        """What its stage is known by: `lora` only where there is one."""
        return self.model_dump(exclude=None if self.lora else {"lora"})


class Teacher(Part):
    """The first teacher and what its scores are fused with."""

    model: str | None = Field(
        None,
        description="MODEL of a cross-encoder, or any teacher of `rkd score`; or give `fit`",
    )
    fit: FitTeacher | None = Field(None, description="fine-tune one on the train split")
    max_length: int = Field(256, ge=8, description="of a pair, by cross-encoders (tokens)")
    fuse_with: list[str] = Field(
        default_factory=list,
        description="further teachers of `rkd score`: bm25, dense:MODEL, pairwise:MODEL, …",
    )
    server: TeacherServer | None = Field(
        None, description="where language models are asked; none: they run here"
    )
    aggregate: dict[str, AggregationName] = Field(
        {},
        description="how answers about pairs or lists become scores, by teacher as named here; "
        "not named: the win rate of all pairs or Bradley–Terry of some, a list's own conclusion",
    )
    weights: list[float] | None = Field(
        None, description="of the cross-encoder and each of fuse_with; none: chosen on dev"
    )
    fusion: Literal["z_scores", "calibrated", "ranks", "agreement", "learned"] = Field(
        "z_scores",
        description="how they become one. z_scores: weighted sum, in standard deviations of each "
        "query's scores; calibrated: of log-odds of relevance; ranks: reciprocal rank fusion; "
        "agreement: who agrees with the others of a query counts more there; learned: weights "
        "for each query, learnt on dev",
    )
    calibration: Literal["platt", "isotonic", "temperature"] = Field(
        "platt", description="of `calibrated`: from score to log-odds, learnt on dev"
    )

    @model_validator(mode="after")
    def _complete(self) -> Teacher:
        if self.model and self.fit:
            raise ValueError("give either `model` or `fit`, not both")
        members = len(self.fuse_with) + bool(self.model or self.fit)
        if not members:
            raise ValueError("no teacher: give `model`, `fit` or `fuse_with`")
        if self.weights is not None and len(self.weights) != members:
            raise ValueError(f"{len(self.weights)} weights for {members} teachers")
        if self.weights is not None and (min(self.weights) < 0 or not any(self.weights)):
            raise ValueError("weights must not be negative, and one must be above 0")
        if len(set(self.fuse_with)) < len(self.fuse_with):
            raise ValueError("a teacher is named twice in fuse_with")
        for name in filter(None, (self.model, *self.fuse_with)):
            as_value_error(check_options, name)
        if self.server is not None:
            check_served(self.server, self.members)
        for name in self.aggregate:
            if name not in self.members:
                raise ValueError(f"aggregate names {name!r}; teachers: {', '.join(self.members)}")
        return self

    @property
    def members(self) -> list[str]:
        """The teachers' names, the cross-encoder first."""
        own = [self.fitted or self.model]
        return [*(name for name in own if name), *self.fuse_with]

    @property
    def fitted(self) -> str | None:
        """The name of the teacher that is fine-tuned first, if one is."""
        if self.fit is None:
            return None
        return FITTED_DECODER if self.fit.is_decoder else FITTED

    @property
    def served(self) -> list[str]:
        """The teachers that are asked on the server."""
        return [] if self.server is None else served_by(self.server, self.members)
