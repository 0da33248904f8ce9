"""The terms of an objective: functions of `retrieval_kd.objectives` with their settings.

A sum of terms can be written as text: `kl+infonce:0.5@batch`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, model_validator
from torch import Tensor

from retrieval_kd import objectives
from retrieval_kd.errors import InputError, did_you_mean
from retrieval_kd.objectives import several, states, vectors
from retrieval_kd.schema import LARGEST, Part, apply_overrides, validate
from retrieval_kd.training.objective.score_names import PAIRS, STORED, ScoreName

Kind = Literal["scores", "several", "regulariser", "layers", "vectors", "states"]
FAMILIES: dict[Kind, list[Callable[..., Tensor]]] = {
    "scores": [getattr(objectives, name) for name in objectives.__all__],
    "several": [several.reinforced_teachers, several.teacher_dropping],
    "regulariser": [vectors.flops, vectors.spread_out],
    "layers": [several.layer_relevance],
    "vectors": [
        vectors.embedding_cosine,
        vectors.embedding_mse,
        vectors.embedding_pca,
        vectors.embedding_similarity,
    ],
    "states": [states.feature_imitation, states.hidden_states],
}
FUNCTIONS = {function.__name__: function for family in FAMILIES.values() for function in family}
KINDS = {function.__name__: kind for kind, family in FAMILIES.items() for function in family}


class Term(Part):
    """One objective of a weighted sum. Further keys are the objective's own parameters."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="function in retrieval_kd.objectives")
    weight: float = Field(1.0, gt=0, description="factor in the sum; no unit")
    candidates: Literal["slate", "batch", "collection"] = Field(
        "slate",
        description="slate: the query's own N candidates; batch: all documents of the batch; "
        "collection: all there are, for an asymmetric student, whose documents are not trained",
    )
    student: str = Field(
        "score",
        description="the scores that are trained: score, a part of a student that has several, "
        "exitK (a layer below the last), or a live teacher's name; several with commas for an "
        "objective on layers. A multi_function student's regulariser: sparse",
    )
    teacher: str = Field(
        STORED,
        description="the scores that are the target. stored: the teacher's stored scores; "
        "stored:K: those of its member number K alone, from 0; pairs:K: that member's answers "
        "about two candidates at a time (a pairwise teacher); a live teacher's name; a part of the "
        "student; positive: similarity to the positive document. For an objective on vectors or "
        "states the MODEL that has them",
    )
    joint: bool = Field(False, description="let the gradient through to the teacher too")
    dimensions: tuple[int, ...] = Field(
        (), description="Matryoshka: mean over scores by the first D dimensions, for each D here"
    )

    @model_validator(mode="after")
    def _checked(self) -> Term:
        check_name(self.name)
        check_parameters(self)
        check_scores(self)
        check_unused(self)
        return self

    @property
    def kind(self) -> Kind:
        """What the objective is a function of."""
        return KINDS[self.name]

    @property
    def function(self) -> Callable[..., Tensor]:
        return FUNCTIONS[self.name]

    @property
    def takes(self) -> list[str]:
        """Names of all the function's parameters."""
        return list(inspect.signature(self.function).parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """The objective's own parameters that the user set."""
        return dict(self.model_extra or {})

    @property
    def learns_from(self) -> Literal["teacher", "labels", "itself", "nothing"]:
        """What the data must have: stored teacher scores, judgments, or neither.

        A regulariser needs no data at all: "nothing".
        """
        if self.kind == "scores" and self.function in objectives.FROM_LABELS:
            return "labels"
        if self.kind == "regulariser":
            return "nothing"
        stored = self.kind == "scores" and self.teachers[0].stored
        return "teacher" if stored or self.kind == "several" else "itself"

    @property
    def learns_model(self) -> bool:
        """Whether `teacher` is a MODEL whose vectors or states are the target."""
        return self.kind in ("vectors", "states")

    @property
    def imitates(self) -> bool:
        """Whether the student's vectors become those of the MODEL in `teacher`, of its width."""
        return self.function in (vectors.embedding_mse, vectors.embedding_cosine)

    @property
    def projects(self) -> bool:
        """Whether the student learns the MODEL's vectors on as many axes as it has dimensions."""
        return "axes" in self.takes

    @property
    def reads_texts(self) -> bool:
        """Whether the MODEL in `teacher` reads a batch's texts in its own tokens."""
        return self.name == "feature_imitation"

    @property
    def students(self) -> list[ScoreName]:
        """Names of the scores that are trained; empty for an objective on vectors or states."""
        if self.learns_model or self.kind == "regulariser":
            return []
        return ScoreName.parse_list(self.student)

    @property
    def teachers(self) -> list[ScoreName]:
        """Names of the scores that are targets; empty if `teacher` does not name scores."""
        if self.kind == "layers":
            return ScoreName.parse_list(self.teacher)
        return [ScoreName.parse(self.teacher)] if self.kind == "scores" else []

    @property
    def scores(self) -> list[ScoreName]:
        """Names of all score matrices that the objective reads: students', then teachers'."""
        return [*self.students, *self.teachers]

    @property
    def pairs_of(self) -> int | None:
        """Number of the stored teacher whose answers about pairs are the target."""
        return next((name.member for name in self.teachers if name.source == PAIRS), None)

    @property
    def asks_members(self) -> bool:
        """Whether the scores of single stored teachers are read."""
        return self.kind == "several" or bool(self.members)

    @property
    def members(self) -> list[int]:
        """Numbers of the stored teachers whose scores the term names one by one."""
        return [n.member for n in self.scores if n.source == STORED and n.member is not None]

    @property
    def named_members(self) -> list[int]:
        """Numbers of the stored teachers whose scores or answers the term names one by one."""
        return self.members + ([] if self.pairs_of is None else [self.pairs_of])

    @property
    def label(self) -> str:
        """The term's name in logs, unique within an objective."""
        parts = [self.name]
        parts += [self.candidates] if self.candidates != "slate" else []
        parts += [self.student] if self.student != "score" else []
        parts += (
            [f"from_{self.teacher}"] if self.teacher != STORED and self.kind == "scores" else []
        )
        parts += [f"from_{self.teacher.rpartition('/')[2]}"] if self.learns_model else []
        return re.sub(r"\W", "_", "_".join(parts))


def parse_terms(text: str) -> list[Term]:
    """Read a sum of terms, each `NAME(SETTING=NUMBER):WEIGHT@CANDIDATES`.

    Example:
        >>> [(t.name, t.weight, t.candidates) for t in parse_terms("kl+infonce:0.5@batch")]
        [('kl', 1.0, 'slate'), ('infonce', 0.5, 'batch')]
        >>> parse_terms("kl(teacher_temperature=0.5)")[0].parameters
        {'teacher_temperature': 0.5}

    Raises:
        InputError: a term cannot be read, or is given twice.
    """
    terms = []
    for part in re.split(r"\+(?![^(]*\))", text):
        match = _TERM.fullmatch(part.strip())
        try:
            if match is None:
                raise InputError("it is not of the form NAME(SETTING=NUMBER):WEIGHT@CANDIDATES")
            name, settings, weight, candidates = match.groups()
            fields = {"name": name, "weight": weight or 1.0, "candidates": candidates or "slate"}
            parameters = [setting.strip() for setting in settings.split(",")] if settings else []
            terms.append(validate(Term, apply_overrides(fields, parameters)))
        except InputError as error:
            raise InputError(
                f"cannot read objective {part!r}: {error.problem.removeprefix('configuration: ')}",
                remedy="write for example kl, kl+infonce or "
                "kl(teacher_temperature=0.5):1.0+infonce:0.5@batch",
            ) from error
    return check_distinct(terms)


_TERM = re.compile(r"([^@:(]*)(?:\(([^()]*)\))?(?::([^@:]*))?(?:@(.*))?", re.DOTALL)


def check_distinct(terms: list[Term]) -> list[Term]:
    """Refuse two terms with the same label: the log could not tell them apart."""
    labels = [term.label for term in terms]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"objective {twice[0]} is given twice", remedy="give it once")
    return terms


def with_temperature(term: Term, student_temperature: float) -> Term:
    """Set the term's τ_s if the objective has one and the user did not set it."""
    if "student_temperature" in term.takes and "student_temperature" not in term.parameters:
        return term.model_copy(update={"student_temperature": student_temperature})
    return term


def check_name(name: str) -> None:
    """Refuse a name that no objective has."""
    if name not in KINDS:
        remedy = did_you_mean(name, KINDS) or f"choose one of {', '.join(KINDS)}"
        raise ValueError(f"no objective {name!r}; {remedy}")


def check_parameters(term: Term) -> None:
    """Refuse parameters that the objective does not have, and values it cannot compute with."""
    own = settable(term.function)
    for key, value in term.parameters.items():
        if key not in own:
            names = ", ".join(own) or "none"
            raise ValueError(f"{term.name} has no parameter {key!r}; it has {names}")
        check_value(term.name, key, value, own[key])


def settable(function: Callable[..., Any]) -> dict[str, Any]:
    """An objective's parameters that a user may set, with their types.

    The trainer sets `progress` and everything that is not a number or a variant's name.

    Example:
        >>> def objective(student: object, *, drop: float = 0.5, labels: object = None): ...
        >>> settable(objective)
        {'drop': <class 'float'>}
    """
    hints = get_type_hints(function)
    return {
        name: hint
        for name, hint in hints.items()
        if (hint in (float, int) or get_origin(hint) is Literal)
        and name not in ("progress", "return")
    }


def check_value(name: str, key: str, value: Any, kind: Any) -> None:
    """Refuse a value that no objective can compute with.

    Args:
        kind: float, int, or the `Literal` of a variant's names.
    """
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            choices = ", ".join(get_args(kind))
            raise ValueError(f"{key} of {name} is {value!r}; choose one of {choices}")
        return
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 <= value <= LARGEST or (value == 0 and key.endswith("temperature")):
        allowed = "above 0" if key.endswith("temperature") else "0 or more"
        raise ValueError(f"{key} of {name} is {value!r}; it must be a number, {allowed}")
    if kind is int and not isinstance(value, int):
        raise ValueError(f"{key} of {name} is {value!r}; it must be a whole number")


def check_scores(term: Term) -> None:
    """Refuse names of scores that cannot be read or do not fit the objective."""
    if term.learns_model and term.teacher == STORED:
        raise ValueError(f"{term.name} needs `teacher`, the MODEL whose {term.kind} are the target")
    students, teachers = term.students, term.teachers
    if term.kind == "layers":
        if len(students) != len(teachers):
            raise ValueError(f"{term.name} needs as many `teacher` scores as `student` scores")
        if ScoreName(STORED) in teachers:
            raise ValueError(f"{term.name} needs `teacher`, layers such as big.exit2,big")
    elif len(students) > 1:
        raise ValueError(f"{term.name} reads one score matrix: name one score in `student`")
    if term.dimensions and term.kind != "scores":
        raise ValueError(f"{term.name} does not read one score matrix: it has no dimensions to cut")
    if term.joint and (term.kind != "scores" or teachers[0].stored):
        raise ValueError(f"{term.name} has no teacher here that a gradient could reach (joint)")
    if min(term.dimensions, default=1) < 1:
        raise ValueError("dimensions are counted from 1")
    if term.dimensions and any(name.dimensions for name in students):
        raise ValueError(f"{term.student} is cut already: leave `dimensions` out")


def check_unused(term: Term) -> None:
    """Refuse settings that an objective of its kind would not read."""
    if term.kind not in ("scores", "several") and term.candidates != "slate":
        raise ValueError(f"{term.name} does not choose among candidates: leave `candidates` out")
    if term.learns_model and term.student != "score":
        raise ValueError(f"{term.name} trains {term.kind}, not scores: leave `student` out")
    if term.teacher != STORED and (
        term.kind in ("several", "regulariser") or term.learns_from == "labels"
    ):
        raise ValueError(f"{term.name} reads no `teacher` of its own: leave it out")
    if term.pairs_of is None:
        return
    if "preferences" not in term.takes:
        raise ValueError(f"{term.name} trains on scores, not on answers about pairs: use pair_kl")
    if term.candidates != "slate":
        raise ValueError(
            f"{term.label}: only a query's own candidates are paired: leave `candidates` out"
        )
    if "teacher_temperature" in term.parameters:
        raise ValueError(f"{term.label}: answers are probabilities: leave teacher_temperature out")
