"""Checks of terms against the student's kind and the training data, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_kd.errors import InputError, log
from retrieval_kd.students.options import UNCUT
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.objective.score_names import POSITIVE, STORED
from retrieval_kd.training.objective.terms import Term, check_distinct

BY_CANDIDATE = ("mse", "bce")  # objectives that learn from a single scored candidate
SQUARE = (  # objectives that compare candidates with each other, or the candidates of two queries
    "bpr", "pair_kl", "pearson", "preference", "rank_contrast", "ranknet", "sinkhorn",
)  # fmt: skip


def check_for_texts(terms: Sequence[Term], kind: str, query: str | None = None) -> None:
    """Refuse terms on states that a student which encodes single texts does not have."""
    for term in terms:
        if term.kind == "states" and query is not None:
            raise ValueError(
                f"{term.name} compares states, and with `query: {query}` queries have none: use an "
                "objective on scores"
            )
        if term.name == "feature_imitation" and kind != "interaction":
            raise ValueError(
                "feature_imitation compares features of an interaction head: it is for interaction"
            )


def check_for_tables(terms: Sequence[Term], kind: str) -> None:
    """Refuse terms for a student of tables and frozen vectors, as no transformer runs in it."""
    for term in terms:
        if term.learns_model or "policy" in term.takes:
            raise ValueError(
                f"{term.label} needs states or vectors of a model, and a {kind} student trains "
                "without any: use an objective on stored scores or judgments"
            )
        if term.dimensions and kind in UNCUT:
            raise ValueError(
                f"{term.label}: vectors of the kind {kind} cannot be cut to their first dimensions"
            )


def check_for_collection(terms: Sequence[Term], fixed: bool) -> None:
    """Refuse `candidates: collection` where a step over all documents would cost too much.

    Args:
        fixed: the student's documents are not trained, and their vectors are at hand.
    """
    for term in terms:
        if term.candidates != "collection":
            continue
        if not fixed:
            raise ValueError(
                f"{term.label}: this student's documents are trained, so every step would have to "
                "encode them all: candidates: batch (only an asymmetric student's are not)"
            )
        if term.name in SQUARE or term.teacher == POSITIVE:
            raise ValueError(
                f"{term.label}: this compares every document with others, too many in a whole "
                "collection: candidates: batch, or an objective such as kl or infonce"
            )


def check_for_pairs(terms: Sequence[Term]) -> None:
    """Refuse terms for a cross-encoder student, which scores only each query's own slate."""
    for term in terms:
        if term.kind not in ("scores", "states"):
            raise ValueError(
                f"{term.name} is not for a cross-encoder: it has logits and states only"
            )
        if term.reads_texts:
            raise ValueError(
                f"{term.name} needs texts encoded separately, but a cross-encoder reads query and "
                "document together; use hidden_states"
            )
        if term.candidates != "slate":
            raise ValueError(f"{term.label}: a cross-encoder scores slates only: candidates: slate")
        stored = term.teacher == STORED or term.pairs_of is not None
        if term.kind == "scores" and not (term.student == "score" and stored):
            raise ValueError(f"{term.label}: a cross-encoder trains on stored scores only")
        if term.dimensions:
            raise ValueError(f"{term.label}: a cross-encoder has no dimensions to cut")


def check_width(
    terms: Sequence[Term], model: str, teacher: int | None, student: int | None
) -> None:
    """Refuse a teacher whose vectors have a size that does not fit the student's; None: not known.

    Imitating needs the same size, learning the first axes of the vectors at most the teacher's.
    """
    if teacher is None or student is None:
        return
    if any(term.projects for term in terms) and student > teacher:
        raise InputError(
            f"the vectors of {model} have {teacher} dimensions, so they have no {student} axes",
            remedy=f"give the student a projection to fewer (student: {{dimensions: {teacher}}})",
        )
    if any(term.imitates for term in terms) and teacher != student:
        raise InputError(
            f"the vectors of {model} have {teacher} dimensions, the student's {student}: it cannot "
            "imitate them",
            remedy=f"give the student a projection, saved with it (student: {{kind: dense, "
            f"dimensions: {teacher}}}), or use embedding_similarity, which compares no numbers",
        )


def check_targets(pools: Sequence[Pool], terms: Sequence[Term]) -> None:
    """Refuse terms that have nothing to train on in these pools."""
    check_distinct(list(terms))
    single = min((0 if p.members is None else len(p.members) for p in pools), default=0)
    paired = any(pool.pairs is not None and len(pool.pairs.better) for pool in pools)
    for term in terms:
        if term.pairs_of is not None:
            if not paired:
                raise InputError(
                    f"objective {term.label} trains on answers about pairs; no pool has any",
                    remedy="score these candidates with a pairwise: teacher, in both orders",
                )
            continue
        if term.learns_from in ("itself", "nothing"):
            continue
        if term.asks_members and single <= max(term.members, default=0):
            raise InputError(
                f"objective {term.label} needs each teacher's own scores, but the pools hold only "
                f"{single} of them",
                remedy="name them in teacher.fuse_with of `rkd run`, or give build_pools `members`",
            )
        if term.learns_from == "teacher":
            enough = any(np.isfinite(pool.teacher).any() for pool in pools)
            if enough:
                _check_compares(pools, term)
            remedy = "give the score store and its teachers (--store, --teacher)"
        else:
            enough = any((pool.gains > 0).any() for pool in pools)
            remedy = "train on a split with judgments, or use an objective that needs none"
        if not enough:
            what = "teacher scores" if term.learns_from == "teacher" else "judgments"
            raise InputError(f"objective {term.name} needs {what}; no pool has any", remedy=remedy)


def _check_compares(pools: Sequence[Pool], term: Term) -> None:
    """Refuse to compare scores within queries of which each has one: every loss is constant."""
    if term.candidates != "slate" or term.name in BY_CANDIDATE:
        return
    alone = sum(int(np.isfinite(pool.teacher).sum() < 2) for pool in pools)
    if alone == len(pools):
        raise InputError(
            f"objective {term.name} compares a query's candidates, and no query has two with a "
            "teacher score: it would learn nothing",
            remedy="score more candidates of each query, or use objective mse or infonce@batch",
        )
    if alone:
        log.warning(
            "objective %s learns nothing from %d of %d queries: fewer than two of their candidates "
            "have a teacher score", term.name, alone, len(pools),
        )  # fmt: skip
