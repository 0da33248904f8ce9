"""A scored pair as readers return it, and their checks of its IDs and score."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from retrieval_kd.errors import InputError


class ScoredPair(NamedTuple):
    """A score of a pair from a file; `line` (or row) counts from 1."""

    query_id: str
    document_id: str
    score: float
    line: int


def to_id(value: Any, noun: str, file: Path, line: int) -> str:
    """Check an ID and convert it to text.

    Example:
        >>> to_id(867436, "query", Path("scores.jsonl"), 1)
        '867436'
        >>> to_id(1.5, "query", Path("scores.jsonl"), 1)
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: scores.jsonl:1: query ID 1.5 is neither text nor a whole \
number
    """
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        problem = f"{noun} ID {value!r:.80} is neither text nor a whole number"
        raise InputError(problem, file=file, line=line)
    text = value.strip()
    if not text:
        raise InputError(f"empty {noun} ID", file=file, line=line)
    if len(text.split(None, 1)) > 1:
        raise InputError(
            f"{noun} ID with whitespace",
            file=file,
            line=line,
            id=f"{text:.60}",
            remedy="is this a text? Scores are imported by ID",
        )
    return text


def to_score(value: Any, file: Path, line: int) -> float:
    """Check a score, a number or its text, and convert it to a finite float.

    Example:
        >>> to_score("-3.25", Path("scores.tsv"), 1)
        -3.25
    """
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"score {value!r:.60} is not a finite number", file=file, line=line)
    return score


def only_ranks(file: Path, line: int) -> InputError:
    """The error for an order without scores."""
    return InputError(
        "an order of documents without scores",
        file=file,
        line=line,
        remedy="import a file with the teacher's own scores: a rank says which document is better "
        "but not by how much, so as a pointwise score it would be made up",
    )
