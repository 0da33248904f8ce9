"""Condensed lists are trec_eval's, Holm is statsmodels', depth and unjudged documents are said."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from statsmodels.stats.multitest import multipletests

from retrieval_kd.data.runs import Run
from retrieval_kd.evaluation.report.table import to_grid
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.significance import holm
from tests.metrics.test_measures import SAME, many_judgments, many_results


@given(many_judgments, many_results)
@settings(max_examples=40, deadline=None)
def test_condensed_lists_equal_trec_evals_judged_documents_only(qrels, run):
    if not set(run) & {q for q, gains in qrels.items() if any(gains.values())}:
        return
    ours = evaluate(qrels, {"run": Run("run", run)}, SAME, condensed=True).per_query["run"]
    evaluator = pytrec_eval.RelevanceEvaluator(
        qrels, set(SAME.values()), judged_docs_only_flag=True
    )
    theirs = evaluator.evaluate({q: row for q, row in run.items() if row})
    for measure, name in SAME.items():
        for query, value in ours[measure].items():
            expected = theirs.get(query, {}).get(name, 0.0)
            assert math.isclose(value, expected, abs_tol=1e-9), (measure, query)


@pytest.mark.parametrize("measure", ["mrr@1", "ndcg@3", "mrr@10", "map"])
def test_judged_at_10_is_of_ten_documents_whatever_the_cut_off(measure):
    ranking = {f"d{i}": 20.0 - i for i in range(20)}  # the 2nd, 4th … 20th are judged
    qrels = {"q": {f"d{i}": 1 for i in range(1, 20, 2)}}
    evaluation = evaluate(qrels, [Run("run", {"q": ranking})], measure)
    assert evaluation.holes("run", 10) == 0.5
    assert not evaluation.warnings, "one unjudged first document is no sign of foreign IDs"


def test_condensing_changes_the_values_and_says_so_but_not_what_was_judged():
    qrels, found = {"q": {"a": 1, "b": 0}}, {"q": {"x": 3.0, "y": 2.0, "a": 1.0}}
    whole = evaluate(qrels, [Run("run", found)], "mrr@10")
    condensed = evaluate(qrels, [Run("run", found)], "mrr@10", condensed=True)
    assert (whole.mean("run", "mrr@10"), condensed.mean("run", "mrr@10")) == (1 / 3, 1.0)
    assert condensed.holes("run", 10) == whole.holes("run", 10) == pytest.approx(1 / 3)
    assert any("condensed" in rule for rule in condensed.rules)
    assert not any("condensed" in rule for rule in whole.rules)
    again = Evaluation.from_json(condensed.to_json())
    assert again.rules == condensed.rules == condensed.group().rules


def test_a_cutoff_is_applied_after_condensing():
    # ten unjudged documents before the only judged one
    found = {"q": {f"x{i}": 20.0 - i for i in range(10)} | {"a": 1.0}}
    for condensed, value in ((False, 0.0), (True, 1.0)):
        evaluation = evaluate({"q": {"a": 1}}, [Run("r", found)], "ndcg@10", condensed=condensed)
        assert evaluation.mean("r", "ndcg@10") == value


def test_how_deep_a_run_goes_is_counted():
    found = {"q": {f"d{i}": -float(i) for i in range(30)}, "r": {"d1": 1.0}}
    evaluation = evaluate({"q": {"d1": 1}, "r": {"d1": 1}}, [Run("run", found)], "ndcg@10")
    assert evaluation.counts["systems"]["run"]["longest_list"] == 30


def test_a_run_that_ends_before_a_cutoff_is_said_to_wherever_its_figures_are_shown():
    found = {"q": {f"d{i}": -float(i) for i in range(30)}, "r": {"d1": 1.0}}
    runs = [
        Run("s#1", found),
        Run("s#2", found),
        Run("deep", {"q": {f"d{i}": -i for i in range(50)}}),
    ]
    evaluation = evaluate({"q": {"d1": 1}, "r": {"d1": 1}}, runs, "ndcg@10,recall@50,recall@100")
    assert "run 'deep' has no results for 1 queries, which count as 0" in evaluation.warnings
    assert any(warning.startswith("s#1 has at most 30") for warning in evaluation.warnings)
    grouped = Evaluation.from_json(evaluation.group().to_json())
    assert grouped.depth("s") == 30 and grouped.depth("deep") == 50
    assert grouped.short_lists() == [
        "s has at most 30 documents per query, and its Recall@50, Recall@100 are computed on these",
        "deep has at most 50 documents per query, and its Recall@100 is computed on these",
    ]
    assert grouped.short_lists()[1] in to_grid(grouped).note


def test_holms_correction_is_statsmodels():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 7, 20):
        p_values = (rng.random(size) ** 4).round(3).tolist()  # rounded: some are equal
        theirs = multipletests(p_values, method="holm")[1]
        assert holm(p_values) == pytest.approx(theirs.tolist())


def random_case(seed: int) -> tuple[dict, dict]:
    """40 queries: ties, graded judgments, missing queries, short and empty lists."""
    rng = random.Random(seed)
    ids = [f"d{i:03d}" for i in range(120)]
    qrels, run = {}, {}
    for i in range(40):
        qrels[f"q{i}"] = {d: rng.randint(0, 3) for d in rng.sample(ids, rng.randint(1, 30))}
        qrels[f"q{i}"][rng.choice(ids)] = 1
        levels = rng.choice([2, 5, 1000])
        if rng.random() > 0.1:
            length = rng.choice([0, 1, 5, 100])
            run[f"q{i}"] = {d: rng.randint(0, levels) / 4 for d in rng.sample(ids, length)}
    return qrels, run


@pytest.mark.parametrize("seed", range(50))
def test_two_thousand_random_queries_are_measured_as_trec_eval_does(seed):
    qrels, run = random_case(seed)
    ours = evaluate(qrels, {"run": Run("run", run)}, SAME).per_query["run"]
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(SAME.values()))
    theirs = evaluator.evaluate({q: row for q, row in run.items() if row})
    for measure, name in SAME.items():
        expected = [theirs.get(query, {}).get(name, 0.0) for query in ours[measure]]
        np.testing.assert_allclose(list(ours[measure].values()), expected, rtol=0, atol=1e-9)


def test_an_oracle_a_reversed_run_and_a_constant_scorer_keep_their_order():
    qrels, _ = random_case(1)
    ids = [f"d{i:03d}" for i in range(120)]
    oracle = {q: {d: float(gains.get(d, 0)) for d in ids} for q, gains in qrels.items()}
    runs = {
        "oracle": Run("oracle", oracle),
        "constant": Run("constant", {q: dict.fromkeys(ids, 1.0) for q in qrels}),
        "reversed": Run("reversed", {q: {d: -s for d, s in r.items()} for q, r in oracle.items()}),
    }
    measures = ["ndcg@10", "map", "mrr", "r-precision"]
    evaluation = evaluate(qrels, runs, measures)
    for measure in measures:
        best, middle, worst = (evaluation.mean(name, measure) for name in runs)
        assert best == pytest.approx(1.0) and worst < middle < 1.0, measure
    assert evaluation.mean("reversed", "ndcg@10") == 0.0
    judged = sum(len(gains) for gains in qrels.values()) / len(qrels) / len(ids)
    assert evaluation.holes("constant") == pytest.approx(judged, abs=0.05), "as chance has it"


def test_in_a_corpus_of_its_own_queries_finding_oneself_is_worth_nothing():
    """As ArguAna: every query is a document, and a copier ranks it first."""
    ids = [f"d{i}" for i in range(50)]
    qrels = {d: {d: 1, ids[i - 1]: 1} for i, d in enumerate(ids)}
    copier = Run("copier", {d: {d: 9.0, ids[(i + 1) % 50]: 1.0} for i, d in enumerate(ids)})
    finder = Run("finder", {d: {d: 9.0, ids[i - 1]: 1.0} for i, d in enumerate(ids)})
    evaluation = evaluate(qrels, [copier, finder], "mrr@10")
    assert evaluation.mean("copier", "mrr@10") == 0.0
    assert evaluation.mean("finder", "mrr@10") == 1.0
