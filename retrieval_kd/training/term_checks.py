"""What objectives cannot be asked for: wrong names and numbers, a student without the means."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_kd.training.terms import Term

STORED, POSITIVE = "stored", "positive"


def check_score_name(name: str) -> None:
    """Refuse `score@x` and `stored:x`, where x is no number.

    Raises:
        ValueError: saying what is a name.
    """
    _, cut, width = name.partition("@")
    if cut and not (width.isdecimal() and int(width)):
        raise ValueError(f"{name!r}: after @ comes a number of dimensions, as in score@64")
    member = name.removeprefix(f"{STORED}:")
    if member != name and not member.isdecimal():
        raise ValueError(f"{name!r}: after stored: comes the number of a teacher, from 0")


def check_number(name: str, key: str, value: Any) -> None:
    """Refuse what no objective can compute with.

    Raises:
        ValueError: not a number, infinite, negative, or a temperature of zero.
    """
    if isinstance(value, bool | str) and not key.endswith("temperature"):
        return  # a switch or the name of a variant
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 <= value < inf or (value == 0 and key.endswith("temperature")):
        raise ValueError(f"{key} of {name} is {value!r}, not a number above 0")


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
        if term.candidates == "batch":
            raise ValueError(f"{term.label}: a cross-encoder scores slates only: candidates: slate")
        if term.kind == "scores" and (term.student, term.teacher) != ("score", STORED):
            raise ValueError(f"{term.label}: a cross-encoder learns its score from stored ones")
        if term.dimensions:
            raise ValueError(f"{term.label}: a cross-encoder has no dimensions to cut")
