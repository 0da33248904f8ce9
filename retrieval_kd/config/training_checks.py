"""Checks that the stages of a training fit the student's kind, its teachers and the splits."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_kd.config.training import Merge, TrainingStage
from retrieval_kd.students.options import FIXED, PARTS, RE_RANKS, TABLES
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.training.objective.score_names import POSITIVE, STORED, ScoreName
from retrieval_kd.training.objective.term_checks import (
    check_for_collection,
    check_for_pairs,
    check_for_tables,
    check_for_texts,
)
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.trainer.settings import check_uncached


def check_merge(merge: Merge | None, kind: str, has_dev: bool, seeds: int = 1) -> None:
    """Refuse a share that dev queries must choose and cannot, and seeds that are only one."""
    if merge is not None and merge.with_ == "seeds" and seeds < 2:
        raise ValueError("merge: there is one seed, and nothing to average it with: set `seeds`")
    if merge is None or merge.share != "dev":
        return
    if kind in RE_RANKS:
        raise ValueError(f"merge.share: a {kind} student is not tried on dev: give a number")
    if not has_dev:
        raise ValueError("merge.share: dev is chosen on dev queries: set a dev split, or a number")


def check_cached(stage: TrainingStage, mini_batch_size: int | None, kind: str) -> None:
    """Refuse cached gradients where no gradient would reach the student's representations."""
    if mini_batch_size is None:
        return
    if kind in RE_RANKS:
        check_uncached(mini_batch_size)
    if all(_trains_only_live(term, stage) for term in stage.objective):
        raise ValueError(
            "mini_batch_size: every objective of this stage trains a live model and none the "
            "student, whose gradients alone are cached; leave it out, or train the student too"
        )


def _trains_only_live(term: Term, stage: TrainingStage) -> bool:
    trained = [*term.students, *(term.teachers if term.joint else [])] or [ScoreName("score")]
    return all(score.source in stage.live for score in trained)


def check_scores(
    stage: TrainingStage, members: Sequence[str], kind: str, query: str | None = None
) -> None:
    """Refuse objectives and names of scores that a stage does not have."""
    if kind in RE_RANKS:
        _check_re_ranks(stage)
    else:
        check_for_texts(stage.objective, kind, query)
        check_for_collection(stage.objective, kind in FIXED)
    if kind in TABLES:
        check_for_tables(stage.objective, kind)
        if stage.live:
            raise ValueError(f"a {kind} student trains without any transformer: no `live`")
    check_vectors(stage.objective, kind)
    for name in stage.teachers:
        if name not in members:
            raise ValueError(f"no teacher {name!r}; choose one of {', '.join(members)}")
    _check_pairs(stage, members)
    sources = ["score", STORED, POSITIVE, *PARTS.get(kind, ()), *stage.live]
    words = "sparse" if kind == "multi_function" else "score"  # the vector over the vocabulary
    for term in stage.objective:
        if term.kind == "regulariser" and term.student != words:
            raise ValueError(f"{term.name} of a {kind} student needs `student: {words}`")
        for score in term.scores:
            if score.member is not None and score.member >= len(members):
                raise ValueError(f"{score}: there are {len(members)} teachers, counted from 0")
            of_pairs = term.pairs_of is not None and score in term.teachers
            is_exit = ScoreName(score.source).exit is not None
            if score.source not in sources and not of_pairs and not is_exit:
                raise ValueError(
                    f"no scores named {str(score)!r}; choose one of {', '.join(sources)}"
                )


def _check_re_ranks(stage: TrainingStage) -> None:
    """Refuse what needs a search, or scores of other queries' candidates."""
    check_for_pairs(stage.objective)
    settings = ("live", "refresh", "confused", "select", "texts")
    searching = [name for name in settings if getattr(stage, name)]
    if searching:
        raise ValueError(
            f"a cross-encoder student cannot use {searching[0]!r}: it only re-ranks its own "
            "query's candidates"
        )


def check_vectors(terms: Sequence[Term], kind: str) -> None:
    """Refuse objectives on one vector per text for a student whose texts have another kind."""
    for term in terms if kind == "sparse" else ():
        if term.imitates or term.projects:
            raise ValueError(
                f"{term.name} imitates a MODEL's vectors, and a sparse student's have a weight per "
                "word: use embedding_similarity, or a dense student"
            )
    for term in terms if kind == "multi_vector" else ():
        if term.kind in ("vectors", "regulariser") or "policy" in term.takes:
            raise ValueError(
                f"{term.name} reads one vector per text, and a multi_vector student has one per "
                "token: use an objective on scores, or a different kind of student"
            )


def _check_pairs(stage: TrainingStage, members: Sequence[str]) -> None:
    """Refuse answers about pairs of a teacher that is not pairwise, or of several teachers."""
    numbers = {term.pairs_of for term in stage.objective if term.pairs_of is not None}
    if len(numbers) > 1:
        raise ValueError("a stage learns the pairs of one teacher: put them in two stages")
    for number in numbers:
        if number < len(members) and parse_spec(members[number]).kind != "pairwise":
            raise ValueError(
                f"pairs:{number} is {members[number]}, which is not a pairwise teacher"
            )
