"""What a stage of a training cannot be asked for, said before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrieval_kd.config.training import owner_of
from retrieval_kd.students.options import PARTS, RE_RANKS
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.training.objective.term_checks import check_for_pairs, check_for_texts
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.trainer.settings import check_uncached

if TYPE_CHECKING:
    from retrieval_kd.config.training import TrainingStage


def check_re_ranks(stage: TrainingStage) -> None:
    """Refuse, for a student without vectors, what takes a search or another's scores of the batch.

    Raises:
        ValueError: saying what.
    """
    check_for_pairs(stage.objective)
    asked = [n for n in ("live", "refresh", "confused", "select") if getattr(stage, n)]
    if asked:
        raise ValueError(f"{asked[0]!r} is not for a cross-encoder student: it cannot search")


def check_cached(stage: TrainingStage, mini_batch_size: int | None, kind: str) -> None:
    """Refuse cached gradients where no gradient would reach the student's representations.

    Raises:
        ValueError: saying why, and what to do.
    """
    if mini_batch_size is None:
        return
    if kind in RE_RANKS:
        check_uncached(mini_batch_size)
    if all(_only_live(term, stage) for term in stage.objective):
        raise ValueError(
            "mini_batch_size: every objective of this stage trains a live model and none the "
            "student, whose gradients alone are cached; leave it out, or let the student learn too"
        )


def _only_live(term: Term, stage: TrainingStage) -> bool:
    """Whether all that learns by a term are live models."""
    learns = [*term.students, *(term.teachers if term.joint else [])] if term.scores else ["score"]
    return all(owner_of(score) in stage.live for score in learns)


def check_scores(stage: TrainingStage, members: Sequence[str], kind: str) -> None:
    """Refuse names of teachers and scores that a stage does not have.

    Raises:
        ValueError: naming those there are.
    """
    if kind in RE_RANKS:
        check_re_ranks(stage)
    else:
        check_for_texts(stage.objective, kind)
    check_vectors(stage.objective, kind)
    for term in stage.objective:
        if term.kind == "regulariser" and term.student != _regularised(kind):
            raise ValueError(
                f"{term.name} of a {kind} student needs `student: {_regularised(kind)}`"
            )
    for name in stage.teachers:
        if name not in members:
            raise ValueError(f"no teacher {name!r}; there are {', '.join(members)}")
    known = ["score", "stored", "positive", *PARTS.get(kind, ()), *stage.live]
    check_pairs(stage, members)
    for score, of_pairs in _scores_of(stage.objective):
        name, _, number = owner_of(score).partition(":")
        if number and int(number) >= len(members):
            raise ValueError(f"{score}: there are {len(members)} teachers, counted from 0")
        if name not in known and not of_pairs and not re.fullmatch(r"exit\d+", name):
            raise ValueError(f"no scores named {score!r}; there are {', '.join(known)}")


def _scores_of(terms: Sequence[Term]) -> list[tuple[str, bool]]:
    """All scores that terms name, and of each whether it is answers about pairs that are learnt."""
    named = [(score, term) for term in terms for score in term.scores]
    return [(score, t.pairs_of is not None and score == t.teacher) for score, t in named]


def check_vectors(terms: Sequence[Term], kind: str) -> None:
    """Refuse what learns from one vector per text, for a student that has one per token.

    Raises:
        ValueError: naming the objective.
    """
    for term in terms if kind == "multi_vector" else ():
        if term.kind in ("vectors", "regulariser") or "policy" in term.takes:
            raise ValueError(
                f"{term.name} is of one vector per text, and a multi_vector student has one per "
                "token: take an objective on scores, or a student of another kind"
            )


def check_pairs(stage: TrainingStage, members: Sequence[str]) -> None:
    """Refuse answers about pairs of a teacher that gives none, or of several teachers.

    Raises:
        ValueError: saying which.
    """
    asked = {term.pairs_of for term in stage.objective if term.pairs_of is not None}
    if len(asked) > 1:
        raise ValueError("a stage learns the pairs of one teacher: put them in two stages")
    for number in asked:
        if number < len(members) and parse_spec(members[number]).kind != "pairwise":
            raise ValueError(f"pairs:{number} is {members[number]}, no pairwise: teacher")


def _regularised(kind: str) -> str:
    """Which of a student's vectors is one of words."""
    return "sparse" if kind == "multi_function" else "score"
