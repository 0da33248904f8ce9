"""Teachers that are made up, to time a training: a step takes as long whatever it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from retrieval_kd.config.run import Config
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.scores import Scores, ScoreTable
from retrieval_kd.errors import InputError
from retrieval_kd.pipeline.ensemble import Ensemble, Fitted
from retrieval_kd.pipeline.queries import Queries
from retrieval_kd.targets.combine import Combination
from retrieval_kd.teachers.comparing.conclude import PairPreferences


def scored(candidates: Mapping[str, list[str]]) -> dict[str, dict[str, float]]:
    """Give each candidate the score of its rank."""
    return {q: {id: float(-rank) for rank, id in enumerate(ids)} for q, ids in candidates.items()}


class SampleEnsemble(Ensemble):
    """Teachers whose scores are random numbers, for queries (ID → text) of a small collection."""

    def __init__(self, config: Config, texts: Mapping[str, str], collection: Collection) -> None:
        depth = min(config.first_stage.depth, len(collection.documents))
        judged = {query: {"d0": 1} for query in texts}
        queries = Queries(dict(texts), judged, {})
        rng, count = np.random.default_rng(0), len(collection.documents)
        listed = {q: [f"d{k}" for k in rng.permutation(count)[:depth]] for q in texts}
        super().__init__(
            collection,
            config.teacher.members,
            lambda part: replace(queries, qrels=judged if part == "train" else {}),
            lambda part: scored(listed),
            config.unlabelled,
        )
        self.rng = rng

    @property
    def fitted(self) -> Fitted:
        return Fitted(dict.fromkeys(self.members, 1.0), Combination())

    def scores(self, part: str, member: str, candidates: Scores | None = None) -> ScoreTable:
        candidates = self.candidates(part) if candidates is None else candidates
        wanted = ScoreTable.of(candidates, self.collection.documents)
        return replace(wanted, scores=self.rng.standard_normal(wanted.pairs))

    def pairs(self, part: str, number: int, candidates: Scores) -> dict[str, PairPreferences]:
        raise InputError("answers about pairs cannot be made up")
