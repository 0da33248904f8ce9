"""The part of a configuration that says who teaches: fine-tuned, fused, here or on a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator

from retrieval_kd.models.lora import Lora
from retrieval_kd.schema import Part, as_value_error
from retrieval_kd.targets.aggregate_orders import ORDER_AGGREGATIONS
from retrieval_kd.targets.aggregate_pairs import PAIR_AGGREGATIONS
from retrieval_kd.teachers.llm.server.settings import TeacherServer, check_served, served_by
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.teachers.spec_check import check_base, check_options
from retrieval_kd.training.trainer.settings import (
    FIT_DEFAULTS,
    LORA_DEFAULTS,
    TrainSettings,
    check_uncached,
)

AggregationName = Literal[
    "win_rate", "copeland", "bradley_terry",
    "reciprocal_rank", "borda", "discounted_rank", "plackett_luce",
]  # fmt: skip
AGGREGATIONS = {"pairwise": [*PAIR_AGGREGATIONS], "listwise": [*ORDER_AGGREGATIONS]}
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
    train: TrainSettings = Field(
        FIT_DEFAULTS,
        description="how it is trained; what is not said is as in `rkd fit-teacher`: steps of 8 "
        "queries × 8 documents, for adapters a rate of their own",
    )

    @model_validator(mode="before")
    @classmethod
    def _usual(cls, told: Any) -> Any:
        """Settings that are not given are those of `rkd fit-teacher`, not a student's."""
        train = told.get("train", {}) if isinstance(told, dict) else None
        if not isinstance(train, dict):
            return told
        usual = LORA_DEFAULTS if told.get("lora") else FIT_DEFAULTS
        return {**told, "train": {**usual.model_dump(), **train}}

    @model_validator(mode="after")
    def _possible(self) -> FitTeacher:
        as_value_error(lambda: check_base(self.base, layers=self.layers, lora=self.lora))
        check_uncached(self.train.mini_batch_size)
        if self.is_decoder and self.train.max_tokens != FIT_DEFAULTS.max_tokens:
            raise ValueError(
                "train.max_tokens: a decoder is trained on what it is scored with; say how long "
                "passages are in `base`: yesno:MODEL?passage_tokens=…"
            )
        return self

    @property
    def is_decoder(self) -> bool:
        """Whether it answers yes or no, rather than by a logit of its own."""
        return parse_spec(self.base).kind == "yesno"

    def cache_key(self) -> dict[str, Any]:
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
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"a teacher is named twice: {', '.join(self.members)}")
        for name in filter(None, (self.model, *self.fuse_with)):
            as_value_error(check_options, name)
        if self.server is not None:
            check_served(self.server, self.members)
        for name, aggregate in self.aggregate.items():
            if name not in self.members:
                raise ValueError(f"aggregate names {name!r}; teachers: {', '.join(self.members)}")
            _check_aggregate(name, aggregate)
        for name in self.members:
            _check_chooser(name, self.members)
        if self.fusion == "learned":
            from retrieval_kd.targets.chooser import subsets

            as_value_error(subsets, members)
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


def chosen_by(member: str) -> str | None:
    """The teacher whose scores choose what this one is asked, if there is one.

    Example:
        >>> chosen_by("pairwise:org/model?pairs=uncertain&by=bm25"), chosen_by("pairwise:org/model")
        ('bm25', None)
    """
    return parse_spec(member).options.get("by")


def and_choosers(members: Iterable[str]) -> list[str]:
    """These teachers, and before them those that choose what they are asked.

    Example:
        >>> and_choosers(["dense:org/model", "pairwise:org/model?pairs=uncertain&by=bm25"])
        ['bm25', 'dense:org/model', 'pairwise:org/model?pairs=uncertain&by=bm25']
    """
    asked = list(members)
    return list(dict.fromkeys([*filter(None, map(chosen_by, asked)), *asked]))


def _check_chooser(member: str, members: list[str]) -> None:
    """Refuse a teacher of which nobody here can choose what it is asked."""
    by = chosen_by(member)
    if by is None and parse_spec(member).options.get("pairs") != "uncertain":
        return
    able = [other for other in members if parse_spec(other).kind not in AGGREGATIONS]
    if by not in able:
        problem = "pairs=uncertain needs by=TEACHER" if by is None else f"no teacher by={by}"
        raise ValueError(
            f"{member}: {problem}; those here that score one by one: {', '.join(able) or 'none'}"
        )


def _check_aggregate(member: str, aggregate: str) -> None:
    """Refuse an aggregation that is not for this teacher's answers."""
    possible = AGGREGATIONS.get(parse_spec(member).kind)
    if possible is None:
        raise ValueError(f"aggregate: {member} scores one by one: leave it out")
    if aggregate not in possible:
        raise ValueError(
            f"aggregate: {aggregate} is not for what {member} answers; one of {', '.join(possible)}"
        )
