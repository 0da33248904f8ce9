"""Weights of teachers that nobody judged anything for."""

from __future__ import annotations

import numpy as np

from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.pipeline.cloze import _ndcg, cautious_weights
from retrieval_kd.targets.combine import Combination
from retrieval_kd.targets.normalise import rerank

QUERIES = [f"q{n}" for n in range(60)]
QRELS = {query: {"d0": 1} for query in QUERIES}


def scores(quality: float, seed: int) -> dict[str, dict[str, float]]:
    """Random scores of 20 documents, the relevant one's higher by `quality`."""
    drawn = np.random.default_rng(seed).normal(size=(len(QUERIES), 20))
    drawn[:, 0] += quality
    return {
        q: {f"d{n}": s for n, s in enumerate(row)} for q, row in zip(QUERIES, drawn, strict=True)
    }


def test_equally_good_teachers_weigh_the_same():
    lists = {"one": scores(1.5, 0), "other": scores(1.5, 1)}
    assert cautious_weights(Combination(), lists, QRELS) == {"one": 0.5, "other": 0.5}


def test_a_teacher_that_knows_nothing_beside_one_that_knows_all_loses_its_weight():
    lists = {"noise": scores(-3.0, 0), "good": scores(3.0, 1)}
    weights = cautious_weights(Combination(), lists, QRELS)
    assert weights["noise"] <= 0.2 and weights["noise"] + weights["good"] == 1


def test_a_better_teacher_weighs_more_of_three():
    lists = {"good": scores(3.0, 0), "poor": scores(-2.0, 1), "worse": scores(-2.0, 2)}
    weights = cautious_weights(Combination(), lists, QRELS)
    assert weights["good"] > max(weights["poor"], weights["worse"])
    assert abs(sum(weights.values()) - 1) < 1e-9


def test_three_equally_good_teachers_weigh_exactly_the_same():
    lists = {name: scores(1.5, seed) for seed, name in enumerate("abc")}
    assert set(cautious_weights(Combination(), lists, QRELS).values()) == {1 / 3}


def test_eight_teachers_are_weighed_in_seconds():
    lists = {name: scores(1.5 if name == "a" else 0.0, ord(name)) for name in "abcdefgh"}
    lists = {name: {q: own[q] for q in QUERIES[:20]} for name, own in lists.items()}
    weights = cautious_weights(Combination(), lists, {q: QRELS[q] for q in QUERIES[:20]})
    assert abs(sum(weights.values()) - 1) < 1e-9


def test_the_quality_of_weights_is_that_of_all_other_measurements():
    drawn = {q: {d: round(s) for d, s in own.items()} for q, own in scores(1.0, 3).items()}
    drawn["q0"] = dict.fromkeys(drawn["q0"], 1.0)  # all alike
    expected = evaluate(QRELS, {"r": rerank("r", drawn)}, ["ndcg@10"]).values("r", "ndcg@10")
    np.testing.assert_allclose(_ndcg(QRELS, drawn), expected)
