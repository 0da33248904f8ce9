"""Combines several teachers into one, in a way that is chosen by name and fitted on judged queries.

The formulas are in `normalise.py` and `chooser.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from retrieval_kd.data.runs import Run
from retrieval_kd.data.scores import Scores, ScoreTable, in_one_numbering
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.targets import CalibrationMethod, Fusion
from retrieval_kd.targets.calibrate import Calibration, calibrated, fit_on
from retrieval_kd.targets.chooser import Chooser, features, fit_chooser, subsets
from retrieval_kd.targets.normalise import (
    agreement_weighted,
    aligned,
    fuse,
    fuse_by,
    rank_fusion,
    z_scores,
)

Judged = Mapping[str, Mapping[str, int]]
REWARD = "ndcg@10"
FOLDS = 5


@dataclass(frozen=True)
class Combination:
    """A way to combine teachers, with what was fitted for it by teacher's name.

    `z_scores`: Σ w · z. `calibrated`: Σ w · log-odds of relevance, on one scale for all queries.
    `ranks`: reciprocal rank fusion. `agreement`: teachers that agree with the others on a query
    count more there. `learned`: weights per query by a `Chooser`.
    """

    how: Fusion = "z_scores"
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    chooser: Chooser | None = None
    teachers: tuple[str, ...] = ()  # in the chooser's order

    def fuse(
        self,
        teachers: Mapping[str, Scores],
        weights: Mapping[str, float],
        drops: Drops | None = None,
        *,
        normalise: bool | None = None,
    ) -> ScoreTable:
        """Fuse the teachers that have a weight.

        Args:
            teachers: raw scores by name.
            normalise: for `z_scores`, see `normalise.fuse`.

        Example:
            >>> scores = {"a": {"q": {"x": 4.0, "y": 2.0}}, "b": {"q": {"x": 0.1, "y": 0.3}}}
            >>> fused = Combination("ranks").fuse(scores, {"a": 2.0, "b": 1.0})
            >>> {document: round(score, 4) for document, score in fused["q"].items()}
            {'x': 0.0489, 'y': 0.0487}
        """
        names = [name for name, weight in weights.items() if weight]
        lists = in_one_numbering([teachers[name] for name in names])
        share = [weights[name] for name in names]
        if self.how == "z_scores":
            return fuse(lists, share, drops, normalise=normalise, names=names)
        if self.how == "calibrated":
            lists = [
                calibrated(scores, self.calibrations[name])
                for name, scores in zip(names, lists, strict=True)
            ]
            return fuse(lists, share, drops, normalise=False, names=names)
        if self.how == "learned":
            assert self.chooser is not None
            chooser = self.chooser.of([self.teachers.index(name) for name in names])
            return fuse_by(partial(chooser.fuse, weights=share), lists, drops, names)
        function = rank_fusion if self.how == "ranks" else agreement_weighted
        return fuse_by(partial(function, weights=share), lists, drops, names)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Combination:
        return TypeAdapter(Combination).validate_python(fields)


def fit_combination(
    how: Fusion, teachers: Mapping[str, Scores], qrels: Judged, method: CalibrationMethod = "platt"
) -> Combination:
    """Fit a combination on judged queries.

    Args:
        teachers: raw scores of those queries, by name.
    """
    if how == "calibrated":
        return Combination(
            how, {name: fit_on(scores, qrels, method) for name, scores in teachers.items()}
        )
    if how == "learned":
        inputs, rewards = chooser_examples(list(teachers.values()), qrels)
        return Combination(how, chooser=fit_chooser(inputs, rewards), teachers=tuple(teachers))
    return Combination(how)


def chooser_examples(teachers: Sequence[Scores], qrels: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Return what a chooser is fitted on: features (Q, T, F) and rewards (Q, S) of judged queries.

    The reward of a set of teachers is the nDCG@10 of the sum of their z-scores.
    """
    shared, raw = aligned(teachers)
    lists = {
        query: (list(shared[query]), np.array([scores[at] for scores in raw], np.float64))
        for query, at in shared.slices()
    }
    judged = {
        query: dict(qrels[query])
        for query in lists
        if any(gain > 0 for gain in qrels.get(query, {}).values())
    }
    if not judged:
        raise InputError(
            "no query that all teachers scored has a relevant document to fit weights on",
            remedy="score the candidates of a judged split with each teacher",
        )
    sets = subsets(len(teachers))
    z = {query: np.array([z_scores(row) for row in lists[query][1]]) for query in judged}
    runs = [
        Run(
            str(number),
            {
                query: dict(zip(lists[query][0], (chosen @ z[query]).tolist(), strict=True))
                for query in judged
            },
        )
        for number, chosen in enumerate(sets)
    ]
    values = evaluate(judged, runs, [REWARD]).per_query
    kept = list(values["0"][REWARD])  # without those whose only relevant document is themselves
    rewards = [[values[str(number)][REWARD][q] for number in range(len(sets))] for q in kept]
    return np.array([features(lists[query][1]) for query in kept]), np.array(rewards)


def held_out(
    how: Fusion,
    teachers: Mapping[str, Scores],
    weights: Mapping[str, float],
    qrels: Judged,
    method: CalibrationMethod = "platt",
) -> Scores | None:
    """Fuse the scores of judged queries, each by a combination fitted on the other folds' queries.

    A fold is left out if the others leave nothing to fit on. A query without a document that all
    teachers scored has an empty list.

    Returns:
        The fused scores, or None if no query with a relevant document is left.
    """
    queries = [query for query in qrels if any(query in scores for scores in teachers.values())]
    tables = dict(zip(teachers, in_one_numbering(list(teachers.values())), strict=True))
    fused: dict[str, Mapping[str, float]] = {query: {} for query in qrels}
    folds = min(FOLDS, len(queries))
    for fold in range(folds):
        held = set(queries[fold::folds])
        others = {query: judged for query, judged in qrels.items() if query not in held}
        try:
            combination = fit_combination(how, teachers, others, method)
        except InputError:  # none of the others is judged and scored
            fused = {query: scores for query, scores in fused.items() if query not in held}
            continue
        held_scores = {
            name: table.of_queries(query for query in table if query in held)
            for name, table in tables.items()
        }
        with suppress(InputError):  # no document that all teachers scored
            fused |= combination.fuse(held_scores, weights)
    ranked = (query for query, documents in fused.items() if documents)
    return fused if any(max(qrels[query].values(), default=0) > 0 for query in ranked) else None
