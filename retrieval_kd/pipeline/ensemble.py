"""Several teachers as one: their fused scores are the targets that students train on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Container
from dataclasses import dataclass

from retrieval_kd.config.queries import Unlabelled
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.scores import Scores, ScoreTable
from retrieval_kd.errors import Drops
from retrieval_kd.pipeline.queries import Queries
from retrieval_kd.targets.combine import Combination
from retrieval_kd.targets.normalise import fuse
from retrieval_kd.teachers.comparing.conclude import PairPreferences


@dataclass(frozen=True)
class Fitted:
    """How several teachers become one: the weight of each, and the way they are combined."""

    weights: Mapping[str, float]
    combination: Combination


class Ensemble(ABC):
    """Several teachers as one, with the queries and candidates to train on.

    The subclass decides where the scores come from: `RunEnsemble` lets the teachers of a run
    score what is missing, `StoredEnsemble` only reads a score store.

    Args:
        members: the teachers' names. Objectives refer to a teacher by its number in this list.
        queries, candidates: by part: `train`, `dev` and, if there are any, `unlabelled`.
        unlabelled: the settings of unlabelled queries, if any.
    """

    def __init__(
        self,
        collection: Collection,
        members: Sequence[str],
        queries: Callable[[str], Queries],
        candidates: Callable[[str], Scores],
        unlabelled: Unlabelled | None = None,
    ) -> None:
        self.collection, self.members, self.unlabelled = collection, list(members), unlabelled
        self.queries, self.candidates = queries, candidates
        # Several teachers are always z-normalised, even if only one has a weight, so that the scale
        # of the targets does not depend on which one it is. A single teacher's scores stay raw.
        self.normalise = len(self.members) > 1

    @property
    @abstractmethod
    def fitted(self) -> Fitted:
        """The weights and the combination."""

    @abstractmethod
    def scores(self, part: str, member: str, candidates: Scores | None = None) -> ScoreTable:
        """Return one teacher's raw scores of a part's candidates, or of `candidates`."""

    @abstractmethod
    def pairs(self, part: str, number: int, candidates: Scores) -> dict[str, PairPreferences]:
        """Return the answers of a pairwise teacher about two candidates at a time, by query."""

    def fused(
        self,
        part: str,
        drops: Drops,
        candidates: Scores | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> ScoreTable:
        """Return the fused scores of a part's candidates, or of `candidates`."""
        used = _positive(weights or self.fitted.weights)
        lists = {member: self.scores(part, member, candidates) for member in used}
        return self.fitted.combination.fuse(lists, used, drops, normalise=self.normalise)

    def one_by_one(
        self,
        part: str,
        candidates: Scores,
        weights: Mapping[str, float] | None = None,
        always: Container[int] = (),
    ) -> list[Scores]:
        """Return each teacher's z-normalised scores, in the order of `members`.

        A teacher without a weight has no scores, unless its number is in `always`.
        """
        used = _positive(weights or self.fitted.weights)
        return [
            fuse([self.scores(part, member, candidates)], [1.0], normalise=True)
            if member in used or number in always
            else {}
            for number, member in enumerate(self.members)
        ]


def _positive(weights: Mapping[str, float]) -> dict[str, float]:
    return {member: weight for member, weight in weights.items() if weight}
