"""Which pairs two teachers order the other way round, against counting them one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.evaluation.teachers.disagreement import disagreement
from retrieval_kd.targets.normalise import z_scores

values = st.lists(st.sampled_from([0.0, 1.0, 1.5, 4.0]), min_size=5, max_size=5)


def scores_of(query_values):
    return {q: {f"d{i}": v for i, v in enumerate(row)} for q, row in query_values.items()}


@given(values, values, st.sets(st.integers(0, 4)))
def test_clashes_by_counting(a, b, relevant):
    found = disagreement(
        scores_of({"q": a}), scores_of({"q": b}), {"q": {f"d{i}": 1 for i in relevant}}
    )
    za, zb = z_scores(np.array(a)), z_scores(np.array(b))
    apart = judged = right = both = 0
    strongest = 0.0
    for i, j in itertools.combinations(range(5), 2):
        of_a, of_b = za[i] - za[j], zb[i] - zb[j]
        both += of_a != 0 and of_b != 0
        if of_a * of_b < 0:
            apart += 1
            strongest = max(strongest, min(abs(of_a), abs(of_b)))
            if (i in relevant) != (j in relevant):
                judged += 1
                right += (of_a > 0) == (i in relevant)
    assert found["pairs"] == both and found["judged"] == judged
    assert found["apart"] == (pytest.approx(apart / both) if both else None)
    assert found["a_right"] == (pytest.approx(right / judged) if judged else None)
    assert [c.strength for c in found["worst"]] == ([pytest.approx(strongest)] if apart else [])


@given(values, values)
def test_turning_the_teachers_round_turns_who_is_right(a, b):
    qrels = {"q": {"d0": 1, "d3": 2}}
    one = disagreement(scores_of({"q": a}), scores_of({"q": b}), qrels)
    other = disagreement(scores_of({"q": b}), scores_of({"q": a}), qrels)
    assert one["apart"] == other["apart"]
    if one["judged"]:
        assert one["a_right"] == pytest.approx(1 - other["a_right"])


def test_the_worst_of_each_query_is_shown_the_strongest_first():
    a = scores_of({"mild": [3.0, 2.9, 0.0], "strong": [3.0, 0.0, 0.0]})
    b = scores_of({"mild": [2.9, 3.0, 0.0], "strong": [0.0, 3.0, 3.0]})
    worst = disagreement(a, b, {}, most=1)["worst"]
    assert [clash.query for clash in worst] == ["strong"]
    assert [c.query for c in disagreement(a, b, {})["worst"]] == ["strong", "mild"]


def test_a_teacher_that_ties_everything_contradicts_nobody():
    a, b = scores_of({"q": [1.0, 1.0, 1.0]}), scores_of({"q": [1.0, 2.0, 3.0]})
    found = disagreement(a, b, {})
    assert found["apart"] is None and found["worst"] == []
