from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.runs import Run
from retrieval_kd.evaluation.diagnostics.fidelity import (
    MEASURES,
    fidelity,
    kendall,
    probability_fidelity,
    rbo,
    relevant_fidelity,
    top_1_fidelity,
    top_k_fidelity,
)

IDS = st.permutations("abcdefghij").flatmap(
    lambda ids: st.integers(1, 10).map(lambda n: list(ids[:n]))
)
SCORES = st.lists(st.floats(-50, 50), min_size=2, max_size=12)


def test_a_student_that_is_its_teacher_is_faithful_in_every_way() -> None:
    run = Run("t", {"q1": {"a": 3.0, "b": 1.0, "c": 0.5}, "q2": {"b": 1.0, "a": 0.0}})
    found = fidelity(run, run, {"q1": {"a": 1, "x": 1}, "q2": {"b": 2}})
    assert found["mean"] == {name: 1.0 for name in MEASURES} | {"shared": 2.5}
    assert set(found["queries"].values()) == {2}


def test_a_monotone_change_of_scale_keeps_ranks_and_a_linear_one_keeps_probabilities() -> None:
    scores = np.array([3.0, 1.0, 0.5, -2.0])
    assert kendall(scores, np.exp(scores)) == 1.0
    assert probability_fidelity(scores, 0.01 * scores + 0.6) == pytest.approx(1.0, abs=1e-6)
    assert probability_fidelity(scores, 0.01 * scores + 0.6, normalise=False) < 0.7


def test_probability_fidelity_is_the_formula() -> None:
    p, q = (1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(1.0)))
    p, q = np.array([p, 1 - p]), np.array([q, 1 - q])
    middle = (p + q) / 2
    divergence = sum((x * np.log2(x / middle)).sum() for x in (p, q)) / 2
    found = probability_fidelity(np.array([2.0, 0.0]), np.array([0.0, 1.0]), normalise=False)
    assert found == pytest.approx(1 - math.sqrt(divergence))


def test_a_divergence_that_rounds_below_zero_is_none() -> None:
    one, other = (
        np.array([0.0, 1, 1, 24, 0, 1.192092896e-07]),
        np.array([1.192092896e-07, 1, 1, 24, 0, 0]),
    )
    assert probability_fidelity(one, other) == pytest.approx(1.0, abs=1e-6)


@given(SCORES, st.randoms())
def test_probability_fidelity_and_kendall_stay_in_range_and_are_symmetric(
    scores: list[float], rng
) -> None:
    other = list(scores)
    rng.shuffle(other)
    a, b = np.array(scores), np.array(other)
    found = probability_fidelity(a, b)
    assert found is not None and 0 <= found <= 1
    assert found == pytest.approx(probability_fidelity(b, a), abs=1e-6)
    tau = kendall(a, b)
    assert tau is None or -1 <= tau <= 1
    assert tau == kendall(b, a)


def test_confident_opposites_share_no_probability() -> None:
    found = probability_fidelity(np.array([1.0, 0.0]), np.array([0.0, 1.0]), temperature=0.01)
    assert found == pytest.approx(0.0, abs=1e-6)


def test_constant_scores_have_no_rank_correlation_but_a_flat_distribution() -> None:
    flat, steep = np.array([1.0, 1.0, 1.0]), np.array([3.0, 2.0, 1.0])
    assert kendall(flat, steep) is None and kendall(steep, flat) is None
    assert probability_fidelity(flat, flat) == 1.0
    assert 0 < probability_fidelity(flat, steep) < 1


def long_rbo(left: list[str], right: list[str], p: float, depth: int = 2000) -> float:
    """RBO of the endless lists that extrapolation supposes, summed term by term.

    Beyond its end the shorter list agrees at its last rate, X_s / s, with what the longer one goes
    on to show; beyond both, agreement stays as it was.
    """
    short, long = sorted((left, right), key=len)
    s, l = len(short), len(long)
    rate = len({*short} & {*long[:s]}) / s
    total, agreement = 0.0, 0.0
    for d in range(1, depth + 1):
        if d <= s:
            agreement = len({*short[:d]} & {*long[:d]}) / d
        elif d <= l:
            agreement = (len({*short} & {*long[:d]}) + (d - s) * rate) / d
        total += (1 - p) * agreement * p ** (d - 1)
    return total


@given(IDS, IDS, st.sampled_from([0.5, 0.9]))
def test_rbo_is_the_sum_over_the_extrapolated_lists(
    left: list[str], right: list[str], p: float
) -> None:
    assert rbo(left, right, p) == pytest.approx(long_rbo(left, right, p), abs=1e-9)
    assert rbo(left, right, p) == rbo(right, left, p)


@given(IDS)
def test_rbo_of_a_list_with_itself_is_one_and_with_strangers_zero(ids: list[str]) -> None:
    assert rbo(ids, ids) == pytest.approx(1.0)
    assert rbo(ids, [id.upper() for id in ids]) == 0.0


def test_rbo_weighs_the_top() -> None:
    ids = list("abcdefgh")
    top, bottom = ["b", "a", *ids[2:]], [*ids[:-2], "h", "g"]
    assert rbo(ids, top) < rbo(ids, bottom) < 1


@pytest.mark.parametrize("k", [1, 2, 3])
def test_label_fidelity_counts_agreement_on_each_relevant_document(k: int) -> None:
    ids = "abc"
    for order in itertools.permutations(ids):
        teacher = {id: 3.0 - i for i, id in enumerate(ids)}
        student = {id: 3.0 - i for i, id in enumerate(order)}
        same = [(ids.index(d) < k) == (order.index(d) < k) for d in "ac"]
        assert relevant_fidelity(teacher, student, "ac", k) == sum(same) / 2
        assert top_k_fidelity(teacher, student, k) == len({*ids[:k]} & {*order[:k]}) / k
        assert top_1_fidelity(teacher, student) == (order[0] == "a")


def test_nothing_in_common_gives_no_correlation_and_is_not_counted() -> None:
    teacher = Run("t", {"q1": {"a": 2.0, "b": 1.0}, "q2": {"a": 1.0, "c": 0.0}})
    student = Run("s", {"q1": {"x": 2.0, "y": 1.0}})
    found = fidelity(teacher, student, {"q1": {"a": 1}, "q2": {"z": 1}, "q3": {"a": 1}})
    assert found["queries"] == {
        "top_1": 2, "top_k": 2, "relevant": 2, "probability": 0, "kendall": 0, "rbo": 1,
        "shared": 2,
    }  # fmt: skip
    assert found["mean"]["kendall"] is None and found["mean"]["probability"] is None
    assert found["mean"]["top_1"] == found["mean"]["rbo"] == 0.0
    assert found["mean"]["relevant"] == 0.5  # q2: both miss z
