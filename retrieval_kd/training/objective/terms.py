"""Which objectives a training minimises, with weights: parsed, checked, evaluated."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from math import inf
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from retrieval_kd import objectives
from retrieval_kd.objectives import several, sparsity
from retrieval_kd.training.objective.score_names import PAIRS, STORED, check_score_name


def settable(function: Callable[..., Any]) -> dict[str, Any]:
    """An objective's parameters that a user may set, and what each one is.

    The others are tensors, functions and maps of layers, which the trainer has or nobody gives.

    Example:
        >>> def objective(student: object, *, drop: float = 0.5, queue: object = None): ...
        >>> settable(objective)
        {'drop': <class 'float'>}
    """
    kinds = get_type_hints(function)
    kinds.pop("return", None)
    return {
        name: kind
        for name, kind in kinds.items()
        if kind in (float, int) or get_origin(kind) is Literal
    }


def check_value(name: str, key: str, value: Any, kind: Any) -> None:
    """Refuse what no objective can compute with.

    Args:
        kind: float, int, or the `Literal` of a variant's names.

    Raises:
        ValueError: no such variant; not a number, infinite, negative, or a temperature of zero.
    """
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{key} of {name} is {value!r}; there are {', '.join(get_args(kind))}")
        return
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 <= value < inf or (value == 0 and key.endswith("temperature")):
        raise ValueError(f"{key} of {name} is {value!r}, not a number above 0")
    if kind is int and not isinstance(value, int):
        raise ValueError(f"{key} of {name} is {value!r}, not a whole number")


def check_used(term: Term) -> None:
    """Refuse settings that an objective of its kind would not look at.

    Raises:
        ValueError: saying which.
    """
    if term.kind not in ("scores", "several") and term.candidates == "batch":
        raise ValueError(f"{term.name} does not choose among candidates: leave `candidates` out")
    if term.kind in ("vectors", "states") and term.student != "score":
        raise ValueError(f"{term.name} learns {term.kind}, no scores: leave `student` out")
    if term.teacher != STORED and (
        term.kind in ("several", "regulariser") or term.learns_from == "labels"
    ):
        raise ValueError(f"{term.name} looks at no `teacher` of its own: leave it out")
    if term.pairs_of is not None and "preferences" not in term.takes:
        raise ValueError(f"{term.name} learns scores, not answers about pairs: that is for pair_kl")
    if term.pairs_of is not None and term.candidates == "batch":
        raise ValueError(
            f"{term.label}: only a query's own candidates are paired: leave `candidates` out"
        )
    if term.pairs_of is not None and "teacher_temperature" in term.parameters:
        raise ValueError(f"{term.label}: answers are probabilities: leave teacher_temperature out")


GIVEN = ("progress",)  # a number that the trainer fills, as it does what is no number
# Functions of `objectives.features` on scores of several layers, on one vector per text, and on
# the states of layers or tokens; `OWN` are settings of these that say what is compared.
ON_LAYERS = ("layer_relevance",)
ON_VECTORS = ("embedding_mse", "embedding_cosine", "rkd_distance", "rkd_angle", "contrastive_kd")
ON_STATES = ("hidden_states", "relations", "token_alignment", "feature_imitation")
OWN = {"relations": {"layer": int}}


class Term(BaseModel):
    """One objective of a weighted sum. Further keys are the objective's own parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="function in retrieval_kd.objectives")
    weight: float = Field(1.0, gt=0, description="factor in the sum; no unit")
    candidates: Literal["slate", "batch"] = Field(
        "slate",
        description="slate: the query's own N candidates; batch: all documents of the batch",
    )
    student: str = Field(
        "score",
        description="which of the student's scores learns: score, a part of a student that has "
        "several, exitK (a layer below the last), or a live teacher's name; several with commas "
        "for an objective on layers. A multi_function student's regulariser: sparse",
    )
    teacher: str = Field(
        STORED,
        description="who is learnt from. stored: the teacher's stored scores; stored:K: those of "
        "its member number K alone, from 0; pairs:K: what that member, a pairwise one, answered "
        "about two candidates at a time; a live teacher's name; a part of the student; positive: "
        "similarity to the positive document. For an objective on vectors or states the MODEL "
        "whose these are",
    )
    joint: bool = Field(False, description="let the gradient through to the teacher too")
    dimensions: tuple[int, ...] = Field(
        (), description="Matryoshka: mean over scores by the first so many dimensions"
    )

    @model_validator(mode="after")
    def _known(self) -> Term:
        known = [*objectives.__all__, *several.__all__, *sparsity.__all__]
        known += [*ON_LAYERS, *ON_VECTORS, *ON_STATES]
        if self.name not in known:
            near = difflib.get_close_matches(self.name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"no objective {self.name!r}; {remedy}")
        own = {key: kind for key, kind in settable(self.function).items() if key not in GIVEN}
        own |= OWN.get(self.name, {})
        for key, value in self.parameters.items():
            if key not in own:
                raise ValueError(f"{self.name} has no parameter {key!r}; it has {', '.join(own)}")
            check_value(self.name, key, value, own[key])
        if self.kind in ("vectors", "states") and self.teacher == STORED:
            raise ValueError(f"{self.name} needs `teacher`, the MODEL whose {self.kind} are learnt")
        if self.kind == "layers" and len(self.students) != len(self.teachers):
            raise ValueError(f"{self.name} needs as many `teacher` scores as `student` scores")
        if self.dimensions and self.kind != "scores":
            raise ValueError(f"{self.name} is not of one score matrix: it has no dimensions to cut")
        if self.joint and (self.kind != "scores" or self.learns_stored):
            raise ValueError(f"{self.name} has no teacher here that a gradient could reach (joint)")
        if min(self.dimensions, default=1) < 1:
            raise ValueError("dimensions are counted from 1")
        for score in self.scores:
            check_score_name(score)
        if self.kind == "layers" and STORED in self.teachers:
            raise ValueError(f"{self.name} needs `teacher`, layers such as big.exit2,big")
        if self.dimensions and "@" in self.student:
            raise ValueError(f"{self.student} is cut already: leave `dimensions` out")
        check_used(self)
        return self

    @property
    def kind(self) -> Literal["scores", "several", "layers", "vectors", "states", "regulariser"]:
        """What the objective is a function of."""
        if self.name in objectives.__all__:
            return "scores"
        if self.name in several.__all__:
            return "several"
        if self.name in ON_LAYERS:
            return "layers"
        if self.name in ON_STATES:
            return "states"
        return "vectors" if self.name in ON_VECTORS else "regulariser"

    @property
    def function(self) -> Callable[..., Tensor]:
        if self.kind in ("vectors", "layers", "states"):
            from retrieval_kd.objectives import features

            return getattr(features, self.name)
        modules = {"scores": objectives, "several": several, "regulariser": sparsity}
        return getattr(modules[self.kind], self.name)

    @property
    def takes(self) -> list[str]:
        """Names of all the function's parameters."""
        return list(inspect.signature(self.function).parameters)

    @property
    def learns_from(self) -> Literal["teacher", "labels", "itself", "nothing"]:
        """What the training's data must have for it: stored teacher scores, judgments, neither.

        A regulariser is no lesson: it learns from "nothing".
        """
        if self.kind == "scores" and self.function in objectives.FROM_LABELS:
            return "labels"
        if self.kind == "regulariser":
            return "nothing"
        stored = self.kind == "scores" and self.learns_stored
        return "teacher" if stored or self.kind == "several" else "itself"

    @property
    def learns_stored(self) -> bool:
        """Whether `teacher` names stored answers."""
        return self.teacher.partition(":")[0] in (STORED, PAIRS)

    @property
    def pairs_of(self) -> int | None:
        """Number of the stored teacher whose answers about pairs are learnt."""
        kind, _, number = self.teacher.partition(":")
        return int(number) if kind == PAIRS and self.kind == "scores" else None

    @property
    def learns_model(self) -> bool:
        """Whether `teacher` is a MODEL, whose vectors or states are learnt."""
        return self.kind in ("vectors", "states")

    @property
    def reads_texts(self) -> bool:
        """Whether the MODEL that is learnt from reads a batch's texts in its own tokens."""
        return self.name in ("token_alignment", "feature_imitation")

    @property
    def students(self) -> list[str]:
        """The scores that learn, one for most objectives."""
        return self.student.split(",")

    @property
    def teachers(self) -> list[str]:
        """The scores that are learnt from."""
        return self.teacher.split(",") if self.kind == "layers" else [self.teacher]

    @property
    def scores(self) -> list[str]:
        """Names of all the score matrices that are looked at."""
        if self.kind in ("vectors", "states", "regulariser"):
            return []
        return [*self.students, *(self.teachers if self.kind != "several" else [])]

    @property
    def asks_members(self) -> bool:
        """Whether the stored teachers are wanted one by one."""
        return self.kind == "several" or bool(self.members)

    @property
    def members(self) -> list[int]:
        """Numbers of the stored teachers that are named alone."""
        numbers = [name.partition(":") for name in self.scores]
        return [int(number) for stored, _, number in numbers if stored == STORED and number]

    @property
    def named_members(self) -> list[int]:
        """Numbers of the stored teachers whose scores or answers about pairs are named alone."""
        return self.members + ([] if self.pairs_of is None else [self.pairs_of])

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        parts = [self.name]
        parts += [self.candidates] if self.candidates != "slate" else []
        parts += [self.student] if self.student != "score" else []
        parts += (
            [f"from_{self.teacher}"] if self.teacher != STORED and self.kind == "scores" else []
        )
        parts += [f"from_{self.teacher.rpartition('/')[2]}"] if self.learns_model else []
        return re.sub(r"\W", "_", "_".join(parts))
