"""Names of score matrices, as objectives write them: `stored:K`, `pairs:K`, `score@64`."""

from __future__ import annotations

STORED, POSITIVE, PAIRS = "stored", "positive", "pairs"


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
