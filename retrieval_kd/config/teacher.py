"""The teachers of a configuration: fine-tuned or not, fused, in this process or on a server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from retrieval_kd.models.lora import Lora
from retrieval_kd.schema import Layer, Part, Tokens, as_value_error, check_weights
from retrieval_kd.targets import CalibrationMethod, Fusion
from retrieval_kd.teachers.comparing.conclude import AGGREGATIONS
from retrieval_kd.teachers.kinds import KINDS
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from retrieval_kd.teachers.spec import check_base, parse_checked, parse_spec
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
FITTED, FITTED_DECODER = "cross-encoder", "decoder"  # names of fine-tuned teachers


class FitTeacher(Part):
    """Fine-tuning of a teacher on judgments, before anything is scored."""

    base: str = Field(
        description="MODEL to start from (an encoder gets a new head), or yesno:MODEL, a decoder"
    )
    layers: list[Layer] | None = Field(
        None, description="layers to keep, counted from 0; by default all"
    )
    lora: Lora | None = Field(
        None, description="for yesno:MODEL: train adapters and leave the model itself unchanged"
    )
    train: TrainSettings = Field(
        FIT_DEFAULTS,
        description="training settings, by default those of `rkd fit-teacher`: steps of 8 queries "
        "× 8 documents, and a learning rate of their own for adapters",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, values: Any) -> Any:
        """Fill in the defaults of `rkd fit-teacher`, which differ from a student's."""
        train = values.get("train", {}) if isinstance(values, dict) else None
        if not isinstance(train, dict):
            return values
        defaults = LORA_DEFAULTS if values.get("lora") else FIT_DEFAULTS
        return {**values, "train": {**defaults.model_dump(), **train}}

    @model_validator(mode="after")
    def _check(self) -> FitTeacher:
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
        """Whether it is a yes/no teacher, and not a cross-encoder."""
        return parse_spec(self.base).kind == "yesno"


class TeacherServer(ServerSettings):
    """A server with OpenAI's API; its key is in the environment: RETRIEVAL_KD_API_KEY."""

    members: list[str] | None = Field(
        None,
        description="teachers, named as in `teacher`, that run there; by default all language "
        "models, rerank:MODEL and dense:server:MODEL",
    )

    def served(self, members: Sequence[str]) -> list[str]:
        """The members that run on the server.

        Example:
            >>> server = TeacherServer(url="http://127.0.0.1:8000/v1")
            >>> server.served(["bm25", "yesno:big", "org/cross-encoder"])
            ['yesno:big']
        """
        return [
            member
            for member in members
            if KINDS[parse_spec(member).kind].may_be_served
            and (self.members is None or member in self.members)
        ]

    def check_members(self, members: Sequence[str]) -> None:
        """Refuse a server that no teacher, or no teacher of this name, can run on."""
        served = self.served(members)
        unknown = [name for name in self.members or () if name not in served]
        if unknown:
            raise ValueError(
                f"server.members names {unknown[0]!r}, which is not one of the "
                f"teachers that a server can run; teachers: {', '.join(members)}"
            )
        if not served:
            raise ValueError(
                "server: it can run none of the teachers; name one with yesno:, likelihood:, "
                "pairwise:, listwise:, rerank: or dense:server:, or leave the server out"
            )
        for name in served:
            if "layers" in parse_spec(name).options:
                raise ValueError(
                    f"{name}: a server answers from its model's last layer: no `layers`"
                )


class Teacher(Part):
    """The teachers of a run and how their scores are fused."""

    model: str | None = Field(
        None,
        description="MODEL of a cross-encoder, or any teacher of `rkd score`; alternative to `fit`",
    )
    fit: FitTeacher | None = Field(None, description="fine-tune a teacher on the train split")
    max_length: Tokens = Field(256, description="length of a pair for cross-encoders (tokens)")
    fuse_with: list[str] = Field(
        default_factory=list,
        description="further teachers of `rkd score`: bm25, dense:MODEL, pairwise:MODEL, …",
    )
    server: TeacherServer | None = Field(
        None,
        description="server for language models, which run in this process by default, and for "
        "rerank:MODEL and dense:server:MODEL, which need one",
    )
    store: str | None = Field(
        None,
        description="score store to read from and write to, such as one of `rkd score`; by default "
        "`scores` in `out`",
    )
    aggregate: dict[str, AggregationName] = Field(
        {},
        description="how comparisons become scores, by teacher as named here; by default the win "
        "rate of all pairs or Bradley–Terry of some, and a listwise strategy's own ranking",
    )
    weights: list[float] | Literal["cloze"] | None = Field(
        None,
        description="weights of the first teacher and each of fuse_with; by default tuned on dev. "
        "cloze: tuned without judgments, on sentences that must find the document they were cut "
        "out of",
    )
    fusion: Fusion = Field(
        "z_scores",
        description="how scores are fused. z_scores: weighted sum, in standard deviations of each "
        "query's scores; calibrated: weighted sum of log-odds of relevance; ranks: reciprocal rank "
        "fusion; agreement: teachers that agree with the others on a query weigh more there; "
        "learned: weights for each query, trained on dev",
    )
    calibration: CalibrationMethod = Field(
        "platt", description="for `calibrated`: from score to log-odds, fitted on dev"
    )

    @model_validator(mode="after")
    def _complete(self) -> Teacher:
        if self.model and self.fit:
            raise ValueError("give either `model` or `fit`, not both")
        members = len(self.fuse_with) + bool(self.model or self.fit)
        if not members:
            raise ValueError("no teacher: give `model`, `fit` or `fuse_with`")
        if isinstance(self.weights, list):
            if len(self.weights) != members:
                raise ValueError(f"{len(self.weights)} weights for {members} teachers")
            check_weights(self.weights)
        if self.weights == "cloze":
            self._check_cloze(members)
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"a teacher is named twice: {', '.join(self.members)}")
        for name in filter(None, (self.model, *self.fuse_with)):
            as_value_error(parse_checked, name)
        if self.store is not None and Path(self.store).exists() and not Path(self.store).is_dir():
            raise ValueError(f"store: {self.store} is a file, and a score store is a folder")
        if self.server is not None:
            self.server.check_members(self.members)
        for name in self.members:
            if KINDS[parse_spec(name).kind].is_hosted and name not in self.served:
                raise ValueError(f"{name}: this teacher is on a server; give `server: {{url: …}}`")
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

    def _check_cloze(self, members: int) -> None:
        """Refuse weights chosen without judgments where they cannot be, or change nothing."""
        if members < 2:
            raise ValueError("weights: cloze weighs several teachers: add to fuse_with")
        if self.fit is not None or self.fusion in ("calibrated", "learned"):
            other = "fit" if self.fit is not None else f"fusion {self.fusion}"
            raise ValueError(f"weights: cloze is for runs without judgments, {other} needs them")

    def cache_key(self) -> Any:
        """Return what decides how scores become targets; each member has a key of its own."""
        fusing = {"weights", "fusion", "aggregate"}
        fusing |= {"calibration"} if self.fusion == "calibrated" else set()
        return self.model_dump(mode="json", include=fusing)

    @property
    def members(self) -> list[str]:
        """The teachers' names, the first one from `model` or `fit`."""
        first = self.fitted or self.model
        return [*([first] if first else []), *self.fuse_with]

    @property
    def fitted(self) -> str | None:
        """The name of the teacher that is fine-tuned first, if one is."""
        if self.fit is None:
            return None
        return FITTED_DECODER if self.fit.is_decoder else FITTED

    @property
    def served(self) -> list[str]:
        """The teachers that run on the server."""
        return [] if self.server is None else self.server.served(self.members)


def chosen_by(member: str) -> str | None:
    """The name of the teacher whose scores choose the pairs that this one compares, or None.

    Example:
        >>> chosen_by("pairwise:org/model?pairs=uncertain&by=bm25"), chosen_by("pairwise:org/model")
        ('bm25', None)
    """
    return parse_spec(member).options.get("by")


def and_choosers(members: Iterable[str]) -> list[str]:
    """These teachers, preceded by those that choose the pairs they compare.

    Example:
        >>> and_choosers(["dense:org/model", "pairwise:org/model?pairs=uncertain&by=bm25"])
        ['bm25', 'dense:org/model', 'pairwise:org/model?pairs=uncertain&by=bm25']
    """
    names = list(members)
    return list(dict.fromkeys([*filter(None, map(chosen_by, names)), *names]))


def _check_chooser(member: str, members: list[str]) -> None:
    """Refuse a teacher whose pairs no other teacher of the run can choose."""
    by = chosen_by(member)
    if by is None and parse_spec(member).options.get("pairs") != "uncertain":
        return
    able = [other for other in members if not KINDS[parse_spec(other).kind].compares]
    if by not in able:
        problem = "pairs=uncertain needs by=TEACHER" if by is None else f"no teacher by={by}"
        raise ValueError(
            f"{member}: {problem}; those here that score one by one: {', '.join(able) or 'none'}"
        )


def _check_aggregate(member: str, aggregate: str) -> None:
    """Refuse an aggregation that does not suit this teacher."""
    possible = AGGREGATIONS.get(parse_spec(member).kind)
    if possible is None:
        raise ValueError(f"aggregate: {member} scores one by one: leave it out")
    if aggregate not in possible:
        raise ValueError(
            f"aggregate: {aggregate} is not for what {member} answers; one of {', '.join(possible)}"
        )
