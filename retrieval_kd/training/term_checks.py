"""What objectives cannot be asked for: wrong names and numbers, a student without the means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from retrieval_kd.training.terms import Term

STORED, POSITIVE, PAIRS = "stored", "positive", "pairs"
WITH_TOKEN_STATES = ("dense", "multi_vector", "interaction")  # kinds whose forward ends with them


def check_score_name(name: str) -> None:
    """Refuse `score@x`, `stored:x` and `pairs:x`, where x is no number.

    Raises:
        ValueError: saying what is a name.
    """
    _, cut, width = name.partition("@")
    if cut and not (width.isdecimal() and int(width)):
        raise ValueError(f"{name!r}: after @ comes a number of dimensions, as in score@64")
    kind, colon, member = name.partition(":")
    if kind in (STORED, PAIRS) and (colon or kind == PAIRS) and not member.isdecimal():
        raise ValueError(f"{name!r}: after {kind}: comes the number of a teacher, from 0")


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


def check_for_texts(terms: Sequence[Term], kind: str) -> None:
    """Refuse states that a student which reads texts one by one does not have.

    Raises:
        ValueError: saying which kinds have them.
    """
    for term in terms:
        if term.name == "token_alignment" and kind not in WITH_TOKEN_STATES:
            raise ValueError(
                f"token_alignment compares vectors of tokens, which a {kind} student does not "
                f"keep: it is for {', '.join(WITH_TOKEN_STATES)}"
            )
        if term.name == "feature_imitation" and kind != "interaction":
            raise ValueError(
                "feature_imitation compares what a head makes of two vectors: it is for interaction"
            )


def check_for_pairs(terms: Sequence[Term]) -> None:
    """Refuse what a cross-encoder student cannot learn: it scores each query's own slate only.

    Raises:
        ValueError: saying which term, and what would do.
    """
    for term in terms:
        if term.kind not in ("scores", "states"):
            raise ValueError(
                f"{term.name} is not for a cross-encoder: it has logits and states only"
            )
        if term.kind == "states" and term.reads_texts:
            raise ValueError(
                f"{term.name} is for texts read apart, not for a cross-encoder's pairs: use "
                "hidden_states or relations"
            )
        if term.candidates == "batch":
            raise ValueError(f"{term.label}: a cross-encoder scores slates only: candidates: slate")
        stored = term.teacher == STORED or term.pairs_of is not None
        if term.kind == "scores" and not (term.student == "score" and stored):
            raise ValueError(f"{term.label}: a cross-encoder learns its score from stored ones")
        if term.dimensions:
            raise ValueError(f"{term.label}: a cross-encoder has no dimensions to cut")
