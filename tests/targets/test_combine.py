"""Several teachers as one, on teachers whose worth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retrieval_kd.errors import Drops, InputError
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.targets.combine import Combination, chooser_examples, fit_combination, held_out
from retrieval_kd.targets.normalise import fuse, rerank

HOWS = ("z_scores", "calibrated", "ranks", "agreement", "learned")
EVERY = pytest.mark.parametrize("how", HOWS)


@pytest.fixture(scope="module")
def judged():
    """60 queries of 12 documents, one relevant; a sharp teacher, a dull one on another scale."""
    rng = np.random.default_rng(0)
    sharp, dull, qrels = {}, {}, {}
    for q in range(60):
        relevant = int(rng.integers(12))
        truth = np.where(np.arange(12) == relevant, 2.5, 0.0)
        for scores, noise, scale in ((sharp, 0.8, 1.0), (dull, 2.0, 40.0)):
            values = scale * (truth + noise * rng.normal(size=12))
            scores[f"q{q}"] = {f"d{i}": float(v) for i, v in enumerate(values)}
        qrels[f"q{q}"] = {f"d{relevant}": 1}
    return {"sharp": sharp, "dull": dull}, qrels


def ndcg(scores, qrels):
    return evaluate(qrels, {"t": rerank("t", scores)}, ["ndcg@10"]).mean("t", "ndcg@10")


@EVERY
def test_two_teachers_are_better_than_the_worse_one_on_queries_not_fitted_on(how, judged):
    teachers, qrels = judged
    fused = held_out(how, teachers, {"sharp": 1.0, "dull": 1.0}, qrels)
    assert fused.keys() == qrels.keys()
    assert ndcg(fused, qrels) > ndcg(teachers["dull"], qrels)


@EVERY
def test_what_was_fitted_survives_json(how, judged):
    teachers, qrels = judged
    fitted = fit_combination(how, teachers, qrels)
    again = Combination.from_dict(json.loads(json.dumps(fitted.as_dict())))
    weights = {"sharp": 1.0, "dull": 0.5}
    assert again.fuse(teachers, weights) == fitted.fuse(teachers, weights)


@EVERY
def test_a_teacher_without_a_weight_is_not_asked_for_its_scores(how, judged):
    teachers, qrels = judged
    fitted = fit_combination(how, teachers, qrels)
    alone = fitted.fuse({"sharp": teachers["sharp"]}, {"sharp": 1.0, "dull": 0.0})
    order = list(rerank("t", teachers["sharp"]).results["q0"])
    assert list(rerank("t", alone).results["q0"]) == order


@EVERY
def test_what_one_teacher_did_not_score_is_left_out_and_counted(how, judged):
    teachers, qrels = judged
    fitted, drops = fit_combination(how, teachers, qrels), Drops()
    dull = {**teachers["dull"], "q0": {"d1": 3.0, "d2": 5.0}}
    fused = fitted.fuse({**teachers, "dull": dull}, {"sharp": 1.0, "dull": 1.0}, drops)
    assert fused["q0"].keys() == {"d1", "d2"}
    assert drops.counts == {"candidate that dull did not score": 10}


@EVERY
def test_a_query_of_equal_scores_gets_equal_targets(how, judged):
    teachers, qrels = judged
    flat = {"q0": {"d1": 1.0, "d2": 1.0, "d3": 1.0}}
    fused = fit_combination(how, teachers, qrels).fuse(
        {"sharp": flat, "dull": flat}, {"sharp": 1.0, "dull": 1.0}
    )
    values = list(fused["q0"].values())
    assert np.isfinite(values).all() and np.ptp(values) == pytest.approx(0, abs=1e-9)


def test_z_scores_are_the_sum_that_they_were(judged):
    teachers, _ = judged
    fused = Combination().fuse(teachers, {"sharp": 0.75, "dull": 0.25})
    assert fused == fuse([teachers["sharp"], teachers["dull"]], [0.75, 0.25])


def test_calibrated_sums_are_log_odds_by_hand(judged):
    teachers, qrels = judged
    fitted = fit_combination("calibrated", teachers, qrels, "temperature")
    slopes = [fitted.calibrations[name].slope for name in ("sharp", "dull")]
    fused = fitted.fuse(teachers, {"sharp": 0.5, "dull": 0.5})["q7"]["d3"]
    by_hand = [s * teachers[n]["q7"]["d3"] for s, n in zip(slopes, ("sharp", "dull"), strict=True)]
    assert fused == pytest.approx(sum(by_hand) / 2)


def test_the_learned_weights_favour_the_better_teacher(judged):
    teachers, qrels = judged
    fitted = fit_combination("learned", teachers, qrels)
    scores = np.array([list(teachers[name]["q0"].values()) for name in ("sharp", "dull")])
    sharp, dull = fitted.chooser.weights(scores)
    assert sharp > dull


def test_a_lesson_is_what_each_set_of_teachers_is_worth(judged):
    teachers, qrels = judged
    found, rewards = chooser_examples(list(teachers.values()), qrels)
    assert found.shape[:2] == (60, 2) and rewards.shape == (60, 3)
    assert rewards[:, 1].mean() == pytest.approx(ndcg(teachers["sharp"], qrels))  # rows: 01, 10, 11
    both = fuse(list(teachers.values()), [1, 1])
    assert rewards[:, 2].mean() == pytest.approx(ndcg(both, qrels))


@pytest.mark.parametrize("how", ["calibrated", "learned"])
def test_folds_without_anything_to_fit_on_are_left_out(how, judged):
    teachers, qrels = judged
    weights = {"sharp": 1.0, "dull": 1.0}
    assert held_out(how, teachers, weights, {"q0": qrels["q0"]}) is None
    dull = {query: teachers["dull"][query] for query in ("q0", "q1", "q2")}
    some = {query: qrels[query] for query in ("q0", "q3")}  # no document of q3 is scored by both
    apart = held_out(how, {**teachers, "dull": dull}, weights, some)
    # q0's fold is fitted on q3 alone, of which the dull one said nothing; q3's has no fused scores
    assert apart is None
    some["q1"] = qrels["q1"]
    apart = held_out(how, {**teachers, "dull": dull}, weights, some)
    assert apart["q3"] == {} and len(apart["q0"]) == len(apart["q1"]) == 12


def test_nothing_judged_is_nothing_to_learn_from(judged):
    teachers, _ = judged
    with pytest.raises(InputError, match="fit weights"):
        fit_combination("learned", teachers, {"other": {"d1": 1}})
