"""Weights are those that rank judged queries best, and are checked on queries left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.runs import Run
from retrieval_kd.errors import InputError
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.retrieval.fit_fusion import Lists, fit_weights, gains_of, values_of
from retrieval_kd.retrieval.fuse import HOWS, fuse_lists
from retrieval_kd.targets.weights import shares

QUERIES = [f"q{n}" for n in range(40)]
DOCUMENTS = [f"d{n}" for n in range(30)]


def made(good: float, seed: int, found: int = 20) -> dict[str, dict[str, float]]:
    """Random lists, in which the relevant document d0 has `good` more."""
    rng = np.random.default_rng(seed)
    return {
        query: {
            id: float(rng.normal() + good * (id == "d0"))
            for id in rng.permutation(DOCUMENTS)[:found]
        }
        for query in QUERIES
    }


def lists(**runs: dict[str, dict[str, float]]) -> Lists:
    return Lists({name: Run(name, own) for name, own in runs.items()}, 20, frozenset({"words"}))


QRELS = {query: {"d0": 2, "d1": 1, "d2": 0} for query in QUERIES}


@given(st.sampled_from(HOWS), st.integers(0, 50))
def test_a_share_is_worth_what_evaluate_says_of_the_fused_run(how, seed):
    both = lists(words=made(1, seed, 6), vectors=made(1, seed + 1))
    qrels = {q: {**own, q: 1, "d3": seed % 3} for q, own in QRELS.items()}
    tried = [(0.5, 0.5), (0.0, 1.0), (0.3, 0.7)]
    values = values_of(tried, both, gains_of(qrels), how)
    for row, share in enumerate(tried):
        fused = {q: fuse_lists(both.of(q)[0], share, how, both.of(q)[1]) for q in QUERIES}
        evaluated = evaluate(qrels, [Run("fused", fused)], ["ndcg@10"])
        assert values[row] == pytest.approx(evaluated.values("fused", "ndcg@10"))


def test_a_part_that_knows_gets_the_weight_and_one_that_guesses_none():
    weights, facts = fit_weights(lists(words=made(0, 0), vectors=made(9, 1)), QRELS, "min_max")
    assert weights["vectors"] >= 0.8 and sum(weights.values()) == pytest.approx(1)
    assert facts["alone"]["vectors"] > 2 * facts["alone"]["words"]
    assert facts["fused"] >= max(facts["equal"], *facts["alone"].values())
    assert facts["queries"] == 40 and 0 <= facts["held_out"]["p"] <= 1


def test_the_held_out_value_is_that_of_weights_chosen_on_the_other_half():
    both = lists(words=made(1, 2), vectors=made(1, 3))
    _, facts = fit_weights(both, QRELS, "min_max")
    order = np.random.default_rng(0).permutation(40)
    tried, total = shares(2), 0.0
    values = values_of(tried, both, gains_of(QRELS), "min_max")
    for own, other in ((order[:20], order[20:]), (order[20:], order[:20])):
        means = values[:, own].mean(1)
        top = np.flatnonzero(means >= means.max() - 1e-12)
        pick = min(top, key=lambda at: abs(tried[at][0] - 0.5))
        total += values[pick, other].sum() / 40
    assert facts["held_out"]["fused"] == pytest.approx(total, abs=1e-4)


def test_weights_that_nobody_asked_for_stay_equal_without_clear_evidence():
    both = lists(words=made(2, 2), vectors=made(2.1, 3))
    assert fit_weights(both, QRELS, "min_max", careful=True)[0] == {"words": 0.5, "vectors": 0.5}


def test_too_few_judged_queries_are_refused():
    few = dict(list(QRELS.items())[:19])
    with pytest.raises(InputError, match=r"19 judged queries are too few .* --weights equal"):
        fit_weights(lists(words=made(1, 0), vectors=made(1, 1)), few, "ranks")
