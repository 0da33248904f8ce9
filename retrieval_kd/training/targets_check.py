"""Whether there is anything to learn from: pools without what an objective needs are refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_kd.errors import InputError
from retrieval_kd.training.slates import Pool
from retrieval_kd.training.terms import Term, check_distinct


def check_targets(pools: Sequence[Pool], terms: Sequence[Term]) -> None:
    """Refuse, before anything is trained, objectives that have nothing to learn from."""
    check_distinct(list(terms))
    single = min((0 if p.members is None else len(p.members) for p in pools), default=0)
    paired = any(pool.pairs is not None and len(pool.pairs.better) for pool in pools)
    for term in terms:
        if term.pairs_of is not None:
            if not paired:
                raise InputError(
                    f"objective {term.label} learns answers about pairs; there are none",
                    remedy="ask a pairwise: teacher about these candidates, in both orders",
                )
            continue
        if term.learns_from in ("itself", "nothing"):
            continue
        if term.asks_members and single <= max(term.members, default=0):
            raise InputError(
                f"objective {term.label} looks at teachers one by one, and {single} are told apart",
                remedy="name them in teacher.fuse_with of `rkd run`, or give build_pools `members`",
            )
        if term.learns_from == "teacher":
            enough = any(np.isfinite(pool.teacher).any() for pool in pools)
            remedy = "give the score store and its teachers (--store, --teacher)"
        else:
            enough = any((pool.gains > 0).any() for pool in pools)
            remedy = "train on a split with judgments, or use an objective that needs none"
        if not enough:
            what = "teacher scores" if term.learns_from == "teacher" else "judgments"
            raise InputError(f"objective {term.name} needs {what}; there are none", remedy=remedy)
