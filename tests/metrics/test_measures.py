"""Measures equal trec_eval's where trec_eval has them, and the rules hold."""

from __future__ import annotations

import math
import random

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.metrics.evaluation import Evaluation
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.names import parse_measure, parse_measures

# ours → trec_eval's
SAME = {
    "ndcg@10": "ndcg_cut_10",
    "ndcg@3": "ndcg_cut_3",
    "ndcg": "ndcg",
    "mrr": "recip_rank",
    "map": "map",
    "map@5": "map_cut_5",
    "recall@5": "recall_5",
    "recall@100": "recall_100",
    "precision@5": "P_5",
    "hit_rate@3": "success_3",
    "r-precision": "Rprec",
    "bpref": "bpref",
}
DOCUMENTS = [*(f"d{i}" for i in range(20)), "D1", "d", "é", "猫", "𝔡"]
# few distinct scores, so that ties are common, some of them only in single precision
SCORES = [-0.5, 0.0, -0.0, 1e-60, 0.1, 0.1 + 1e-10, 0.1 + 1e-6, 2.0**24, 2.0**24 + 1, 1e39, 2e39]

judgments = st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1)
results = st.dictionaries(st.sampled_from(DOCUMENTS), st.sampled_from(SCORES))
QUERIES = [f"q{i}" for i in range(6)]
many_judgments = st.dictionaries(st.sampled_from(QUERIES), judgments, min_size=1).filter(
    lambda qrels: any(any(gains.values()) for gains in qrels.values())
)
many_results = st.dictionaries(st.sampled_from(QUERIES), results)


@given(many_judgments, many_results)
@settings(max_examples=400, deadline=None)
def test_every_measure_equals_trec_evals(qrels, run):
    if not set(run) & {q for q, gains in qrels.items() if any(gains.values())}:
        return
    ours = evaluate(qrels, {"run": Run("run", run)}, SAME)
    filled = {q: row for q, row in run.items() if row}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(SAME.values())).evaluate(filled)
    for measure, name in SAME.items():
        values = ours.per_query["run"][measure]
        assert set(values) == {q for q, gains in qrels.items() if any(gains.values())}
        for query, value in values.items():
            expected = theirs[query][name] if query in theirs else 0.0
            assert math.isclose(value, expected, abs_tol=1e-9), (measure, query)


@given(many_judgments, many_results)
@settings(max_examples=50, deadline=None)
def test_a_relevance_level_equals_trec_evals(qrels, run):
    if not set(run) & {q for q, gains in qrels.items() if any(gains.values())}:
        return
    ours = evaluate(qrels, {"run": Run("run", run)}, ["AP(rel=2)", "R(rel=2)@5"]).per_query["run"]
    names = {"map-l2": "map", "recall@5-l2": "recall_5"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(names.values()), relevance_level=2)
    theirs = evaluator.evaluate({q: row for q, row in run.items() if row})
    for measure, name in names.items():
        for query, value in ours[measure].items():
            assert math.isclose(value, theirs.get(query, {}).get(name, 0.0), abs_tol=1e-9)


def test_names_of_trec_eval_are_read():
    ours = [*SAME, "precision@5", "ndcg@10", "recall@100", "map@100", "hit_rate@3"]
    theirs = [*SAME.values(), "P.5", "ndcg_cut.10", "recall.100", "map_cut.100", "success.3"]
    assert [parse_measure(name) for name in theirs] == ours
    assert parse_measures("P.5,10,ndcg_cut.3,1") == [
        "precision@5", "precision@10", "ndcg@3", "ndcg@1"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "ERR@10",
        "nERR@10",
        "Rndcg",
        "iprec_at_recall_0.10",
        "nRBP",
        "alpha_nDCG@20",
        "gm_map",
        "set_P",
    ],
)
def test_a_measure_that_is_not_computed_is_not_taken_for_another(name):
    with pytest.raises(InputError, match=f"{name}' is not computed.*known are ndcg, .*, rbp"):
        parse_measure(name)


def test_an_option_that_changes_a_measure_is_not_ignored():
    with pytest.raises(InputError, match="nDCG is not computed with \"dcg='exp-log2'\""):
        parse_measure("nDCG(dcg='exp-log2')@10")


def one(qrels, results, measures=("ndcg@10", "mrr@10"), **options) -> Evaluation:
    return evaluate(qrels, [Run("run", results)], measures, **options)


def collection(seed: int = 0, queries: int = 200, documents: int = 100):
    rng = random.Random(seed)
    ids = [f"d{i:03d}" for i in range(documents)]
    qrels = {f"q{i}": {d: rng.randint(1, 3) for d in rng.sample(ids, 4)} for i in range(queries)}
    return ids, qrels


def test_an_oracle_gets_one_and_its_reverse_nothing():
    ids, qrels = collection()
    perfect = {q: {d: float(gains.get(d, 0)) for d in ids} for q, gains in qrels.items()}
    reverse = {q: {d: -score for d, score in row.items()} for q, row in perfect.items()}
    evaluation = evaluate(qrels, [Run("oracle", perfect), Run("reverse", reverse)])
    assert evaluation.mean("oracle", "ndcg@10") == pytest.approx(1.0)
    assert evaluation.mean("oracle", "mrr@10") == 1.0
    assert evaluation.mean("reverse", "ndcg@10") == 0.0
    assert evaluation.mean("reverse", "recall@100") == 1.0


def test_a_constant_scorer_gets_what_chance_gives_whatever_the_order_of_its_results():
    ids, qrels = collection(queries=2000)
    relevant_first = {
        q: {d: 0.5 for d in sorted(ids, key=lambda d: d not in gains)} for q, gains in qrels.items()
    }
    evaluation = one(qrels, relevant_first, ("ndcg@10", "recall@10"))
    assert evaluation.mean("run", "recall@10") == pytest.approx(0.10, abs=0.015)
    assert evaluation.counts["systems"]["run"]["queries_with_all_scores_equal"] == 2000
    assert "order of their IDs" in evaluation.warnings[0]


def test_self_matches_are_left_out_unless_asked_for():
    # as in ArguAna: the query is itself in the corpus and every system finds it first
    qrels = {"d1": {"d2": 1}, "d2": {"d1": 1}}
    found = {"d1": {"d1": 9.0, "d2": 8.0}, "d2": {"d2": 9.0, "d1": 8.0}}
    evaluation = one(qrels, found)
    assert evaluation.mean("run", "mrr@10") == 1.0
    assert evaluation.counts["systems"]["run"]["self_matches_excluded"] == 2
    assert one(qrels, found, exclude_self=False).mean("run", "mrr@10") == 0.5


def test_a_judged_self_match_is_left_out_of_the_ideal_too_and_warned_of():
    evaluation = one({"1": {"1": 2, "7": 1}}, {"1": {"1": 3.0, "7": 2.0}})
    assert evaluation.mean("run", "ndcg@10") == 1.0
    assert evaluation.counts["relevant_self_judgments_excluded"] == 1
    assert "--keep-self (exclude_self=False)" in evaluation.warnings[0]


def test_which_queries_count():
    qrels = {"judged": {"a": 1}, "missing": {"a": 1}, "empty": {"a": 1}, "only zeros": {"a": 0}}
    found = {"judged": {"a": 1.0}, "empty": {}, "not judged": {"a": 1.0}}
    evaluation = one(qrels, found)
    assert evaluation.queries == ["judged", "missing", "empty"]
    assert evaluation.mean("run", "mrr@10") == pytest.approx(1 / 3)
    assert evaluation.counts["queries_without_relevant"] == 1
    assert evaluation.counts["systems"]["run"]["queries_without_results"] == 2
    assert evaluation.counts["systems"]["run"]["queries_not_judged"] == 1


def test_gains_are_graded_and_linear():
    evaluation = one({"q": {"a": 3, "b": 1}}, {"q": {"b": 2.0, "a": 1.0}})
    expected = (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))
    assert evaluation.mean("run", "ndcg@10") == pytest.approx(expected)


def test_rank_biased_precision_is_at_most_one_under_graded_gains():
    qrels = {"q": {"a": 3, "b": 3, "c": 1}}
    evaluation = one(qrels, {"q": {"a": 3.0, "c": 2.0, "b": 1.0}}, ["rbp.5", "RBP(p=0.5,rel=2)"])
    assert evaluation.mean("run", "rbp.5") == pytest.approx(0.5 * (1 + 0.5 + 0.25))
    assert evaluation.mean("run", "rbp.5-l2") == pytest.approx(0.5 * (1 + 0.25))


def test_judged_share_of_what_was_returned():
    evaluation = one(
        {"q": {"a": 1, "b": 0}, "r": {"a": 1}}, {"q": {"a": 3.0, "x": 2.0, "b": 1.0}, "r": {"y": 1}}
    )
    assert evaluation.holes("run", 2) == pytest.approx(1 / 3)
    assert evaluation.holes("run", 10) == pytest.approx(2 / 4)


def test_the_record_survives_json():
    import json

    evaluation = one({"q": {"a": 1}}, {"q": {"b": 2.0, "a": 1.0}})
    again = Evaluation.from_json(json.loads(json.dumps(evaluation.to_json())))
    assert again.per_query == evaluation.per_query
    assert again.rules == evaluation.rules
    assert again.mean("run", "MRR@10") == 0.5


def test_seeds_are_averaged_per_query():
    qrels = {"q": {"a": 1}, "r": {"a": 1}}
    first = Run("s#1", {"q": {"a": 1.0}, "r": {"a": 1.0}})
    second = Run("s#2", {"q": {"a": 1.0}, "r": {"b": 1.0}})
    runs = evaluate(qrels, [first, second], "mrr@10")
    for grouped in (runs.group(), runs.group({"s": ["s#1", "s#2"]})):
        assert grouped.systems == ["s"]
        assert grouped.per_query["s"]["mrr@10"] == {"q": 1.0, "r": 0.5}
        assert grouped.per_seed("s", "mrr@10") == [1.0, 0.5]
        assert grouped.spread("s", "mrr@10") == pytest.approx(0.5 / math.sqrt(2))
        assert grouped.holes("s") == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("qrels", "runs", "measures", "message"),
    [
        ({"q": {"a": 1}}, [Run("r", {"z": {"a": 1.0}})], "ndcg@10", "no query in common"),
        ({"q": {"a": 1}}, [], "ndcg@10", "no run"),
        ({"q": {"a": 0}}, [Run("r", {"q": {"a": 1.0}})], "ndcg@10", "no query has a relevant"),
        ({"q": {"a": 1}}, [Run("r", {"q": {"a": 1.0}})] * 2, "ndcg@10", "two runs are named"),
        ({"q": {"a": 1}}, [Run("r", {"q": {"a": 1.0}})], "ncdg@10", "write ndcg@10"),
        ({"q": {"a": 1}}, [Run("r", {"q": {"a": 1.0}})], "zebra", "known are ndcg"),
        ({"q": {"a": 1}}, [Run("r", {"q": {"a": 1.0}})], "bpref@10", "no cut-off"),
        ({"q": {"a": 1}}, [Run("r", {"q": {"a": 1.0}})], "P@0", "at least 1"),
        ({"q": {"a": 1}}, [Run("r", {"q": {"a": 1.0}})], "", "no measure"),
    ],
)
def test_wrong_input_is_named(qrels, runs, measures, message):
    with pytest.raises(InputError, match=message):
        evaluate(qrels, runs, measures)


def test_gains_whose_powers_no_number_holds_are_refused():
    run = Run("r", {"q": {"d": 2.0, "e": 1.0}})
    for gain, measure in ((2**31 - 1, "ndcg@10"), (1000, "ndcg_burges@10")):
        values = evaluate({"q": {"d": 1, "e": gain}}, [run], [measure]).per_query["r"]
        assert 0 < values[measure]["q"] < 1
    with pytest.raises(InputError, match="2 to the power of each gain, and 1024 is too much"):
        evaluate({"q": {"e": 1024}}, [run], ["ndcg_burges@10"])
