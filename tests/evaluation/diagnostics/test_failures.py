from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.diagnostics.failures import (
    JUDGED,
    LENGTH,
    MISSED,
    OVERLAP,
    bins,
    failure_tables,
    query_features,
    term_overlap,
    worst_queries,
)
from retrieval_kd.evaluation.diagnostics.false_negatives import DEPTHS, QUANTILES, false_negatives

VALUES = st.dictionaries(
    st.text("abcdef", min_size=1), st.integers(0, 9).map(float), min_size=1, max_size=40
)


@given(VALUES, st.integers(1, 5))
def test_every_query_is_in_one_bin_and_equal_values_share_it(
    values: dict[str, float], most: int
) -> None:
    found = bins(values, most)
    assert sorted(q for _, _, queries in found for q in queries) == sorted(values)
    assert len(found) <= max(most, 1)
    for low, high, queries in found:
        assert [min(values[q] for q in queries), max(values[q] for q in queries)] == [low, high]
    ends = [end for low, high, _ in found for end in (low, high)]
    assert ends == sorted(ends)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


def test_distinct_values_are_split_evenly() -> None:
    found = bins({f"q{i:02}": float(i) for i in range(40)}, 4)
    assert [len(queries) for _, _, queries in found] == [10, 10, 10, 10]


@pytest.mark.parametrize("common", [1.0, 0.5, 0.0])
def test_a_value_that_most_queries_have_stands_apart_from_the_others(common: float) -> None:
    """Highest, lowest or in between: what the few others do must not drown in it."""
    few = [x / 10 for x in range(11) if x / 10 != common]
    values = {f"q{i:03}": v for i, v in enumerate([*few, *[common] * 90])}
    [own] = [b for b in bins(values, 4) if b[0] <= common <= b[1]]
    assert len(own[2]) == 90 and own[:2] == (common, common)
    assert 2 <= len(bins(values, 4)) <= 4


def test_no_value_no_bin() -> None:
    assert bins({}) == []
    assert failure_tables({"length": {"q": 1.0}}, {}, {}) == {"length": []}


def test_rows_hold_means_differences_and_who_failed() -> None:
    teacher = {"a": 1.0, "b": 0.5, "c": 0.0, "d": 1.0}
    student = {"a": 0.0, "b": 0.0, "c": 0.25, "d": 1.0}
    [low, high] = failure_tables({"x": {"a": 1, "b": 1, "c": 1, "d": 2}}, teacher, student)["x"]
    assert low["count"] == 3 and low["failed"] == 2 and low["saved"] == 1
    assert low["teacher"] == 0.5 and low["student"] == pytest.approx(0.25 / 3)
    assert low["difference"] == pytest.approx(low["student"] - low["teacher"])
    assert -1 <= low["low"] <= low["difference"] <= low["high"] <= 0.25
    assert high["count"] == 1 and high["low"] is None and high["difference"] == 0


@given(VALUES, st.randoms())
def test_bins_add_up_to_the_whole(values: dict[str, float], rng) -> None:
    teacher = {q: rng.random() for q in values}
    student = {q: rng.random() for q in values}
    rows = failure_tables({"x": values}, teacher, student)["x"]
    total = sum(row["count"] * row["difference"] for row in rows)
    whole = sum(student.values()) - sum(teacher.values())
    assert total == pytest.approx(whole, abs=1e-9)


def test_term_overlap_is_stemmed_and_without_stop_words() -> None:
    assert term_overlap("the moons of a planet", ["A planet's moon"]) == 1.0
    assert term_overlap("moon planet", ["planet", "the moon", "star"]) == 0.5  # the best one counts
    assert term_overlap("the of", ["planet"]) is None
    assert term_overlap("moon", []) is None


def test_features_come_from_texts_judgments_and_the_first_stage(tiny_collection: Path) -> None:
    collection = open_collection(tiny_collection)
    qrels = collection.qrels("test")
    query = next(iter(qrels))
    relevant = list(qrels[query])
    qrels["none"] = {relevant[0]: 0}
    first = Run("first", {query: {relevant[0]: 1.0}})
    features = query_features(collection, qrels, first)
    assert all("none" not in values for values in features.values())
    assert features[LENGTH][query] == 3  # as tiny_models writes them
    assert features[OVERLAP][query] == 1.0  # words of the relevant document
    assert features[JUDGED][query] == 2 and features[MISSED][query] == 0.5
    assert all(features[MISSED][q] == 1 for q in features[MISSED] if q != query)
    assert MISSED not in query_features(collection, qrels)


def test_worst_queries_come_with_texts_and_ranks(tiny_collection: Path) -> None:
    collection = open_collection(tiny_collection)
    qrels = {q: judged for q, judged in list(collection.qrels("test").items())[:3]}
    one, two, three = qrels
    [best, second] = sorted(qrels[one], key=lambda d: -qrels[one][d])
    teacher = Run("t", {one: {best: 2.0, second: 1.0}})
    student = Run("s", {one: {"chess0": 2.0, second: 1.0}})
    values = {one: 1.0, two: 0.5, three: 0.2}, {one: 0.0, two: 0.3, three: 0.9}
    found = worst_queries(collection, qrels, (teacher, student), values)
    assert [case["query_id"] for case in found] == [one, two]  # three is won, not lost
    assert found[0]["query"] == collection.queries[one].full
    assert [d["document_id"] for d in found[0]["relevant"]] == [best, second]
    ranks = [(d["teacher_rank"], d["student_rank"]) for d in found[0]["relevant"]]
    assert ranks == [(1, None), (2, 2)]
    assert found[0]["student_first"]["document_id"] == "chess0"
    assert found[1]["student_first"] is None  # the student returned nothing
    assert worst_queries(collection, qrels, (teacher, student), values, most=1) == found[:1]


def test_negatives_above_positives_are_counted_by_hand() -> None:
    scores = {
        "q1": {"p": 2.0, "q": 0.0, "n1": 3.0, "n2": 1.0, "n3": -1.0},
        "q2": {"p": 4.0, "n1": 0.0, "q2": 9.0},  # the query itself is no negative
        "q3": {"n1": 1.0},  # its positive was not scored
    }
    qrels = {"q1": {"p": 1, "q": 2, "n3": 0}, "q2": {"p": 1}, "q3": {"p": 1}}
    found = false_negatives(scores, qrels)
    assert (found["queries"], found["queries_left_out"]) == (2, 1)
    assert (found["positives"], found["negatives"]) == (3, 4)
    assert found["above_best"] == 1 / 4  # n1 of q1
    assert found["above_worst"] == 2 / 4  # and n2
    assert found["queries_with_one_above_best"] == 1 / 2
    limits = np.quantile([2.0, 0.0, 4.0], QUANTILES)
    shares = [np.mean(np.array([3.0, 1.0, -1.0, 0.0]) > limit) for limit in limits]
    assert list(found["above_quantile"].values()) == shares
    assert found["by_depth"] == [{"depth": 1, "negatives": 2, "above_best": 1 / 2}]


def test_a_perfect_teacher_suspects_nothing_and_a_planted_twin_is_found() -> None:
    rng = np.random.default_rng(0)
    scores = {f"q{i}": {f"n{j}": float(rng.normal()) for j in range(20)} for i in range(50)}
    qrels = {query: {"p": 1} for query in scores}
    for found in scores.values():
        found["p"] = 9.0
    clean = false_negatives(scores, qrels)
    assert clean["above_best"] == clean["queries_with_one_above_best"] == 0
    for query in list(scores)[:5]:
        scores[query]["twin"] = 9.5  # relevant, but nobody judged it
    planted = false_negatives(scores, qrels)
    assert planted["queries_with_one_above_best"] == 5 / 50
    assert planted["above_best"] == 5 / (50 * 20 + 5)
    assert [row["depth"] for row in planted["by_depth"]] == [d for d in DEPTHS if d <= 21]


def test_equal_scores_are_not_above() -> None:
    found = false_negatives({"q": {"p": 1.0, "n": 1.0}}, {"q": {"p": 1}})
    assert found["above_best"] == found["above_worst"] == found["above_quantile"]["0.5"] == 0


def test_scores_without_a_positive_or_a_negative_are_refused() -> None:
    with pytest.raises(InputError, match="no query has a positive and a negative"):
        false_negatives({"q": {"p": 1.0}}, {"q": {"p": 1}, "r": {"p": 1}})
