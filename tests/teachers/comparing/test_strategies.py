"""Strategies make the stated requests and rank only what the answers support."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.errors import InputError
from retrieval_kd.store.requests import Answer, CandidateList
from retrieval_kd.teachers.comparing.list_strategies import Heap, Tournament, Windows
from retrieval_kd.teachers.comparing.pairwise import (
    AdjacentPairs,
    AllPairs,
    SortingPairs,
    UncertainPairs,
    draw,
    uncertainty,
)
from retrieval_kd.teachers.spec import strategy_in

counts = st.integers(0, 33)
PAIRS = [AllPairs(), AdjacentPairs(), AdjacentPairs(3), UncertainPairs(7), SortingPairs()]
LISTS = [
    Windows(4, 2),
    Windows(5, 1, passes=2),
    Windows(20, 10),
    Heap(3, 10),
    Heap(1, 40),
    Heap(2, 1),
    Tournament(4, 2),
    Tournament(10, 1),
]


def run(strategy, relevance, garbled=lambda shown: False, scores=None):
    """Run a strategy with a judge who knows the relevance; return its requests and its result."""
    steps = strategy.steps(CandidateList(len(relevance), scores, seed=3))
    requests, answers = [], None
    try:
        while True:
            pending = next(steps) if answers is None else steps.send(answers)
            requests.append([request.shown for request in pending])
            answers = [judge(request.shown, relevance, garbled) for request in pending]
    except StopIteration as finished:
        return requests, finished.value


def judge(shown, relevance, garbled) -> Answer:
    if garbled(shown):
        return Answer("?", status="unparsable")
    if len(shown) == 2:
        first, second = (relevance[i] for i in shown)
        places = (0, 1) if first > second else (1, 0)
        return Answer(log_odds=float(first - second), order=places)
    return Answer(order=tuple(sorted(range(len(shown)), key=lambda at: -relevance[shown[at]])))


def shuffled(count: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(count), count)


@pytest.mark.parametrize("strategy", [*PAIRS, *LISTS], ids=lambda s: s.spec)
@given(count=counts, seed=st.integers(0, 9))
def test_a_strategy_makes_at_most_the_stated_requests(strategy, count, seed):
    relevance = shuffled(count, seed)
    requests, _ = run(strategy, relevance, scores=tuple(map(float, relevance)))
    made = sum(map(len, requests))
    assert made <= strategy.most_requests(count)
    if not isinstance(strategy, SortingPairs | Heap):  # they stop early where they can
        assert made == strategy.most_requests(count)


@pytest.mark.parametrize("strategy", PAIRS, ids=lambda s: s.spec)
@given(count=counts)
def test_every_pair_is_requested_once_in_both_orders(strategy, count):
    requests, _ = run(strategy, shuffled(count, 1), scores=tuple(range(count)))
    pairs = [shown for batch in requests for shown in batch]
    assert len(pairs) == len(set(pairs))
    assert {(j, i) for i, j in pairs} == set(pairs)


@given(count=st.integers(2, 40), seed=st.integers(0, 99))
def test_a_merge_sort_compares_all_neighbours_of_the_true_order(count, seed):
    """Without each of them no sort knows the order, so Bradley-Terry has what it needs."""
    relevance = shuffled(count, seed)
    requests, _ = run(SortingPairs(), relevance)
    best = sorted(range(count), key=lambda i: -relevance[i])
    pairs = {shown for batch in requests for shown in batch}
    assert {(best[i], best[i + 1]) for i in range(count - 1)} <= pairs


def test_uncertain_pairs_are_those_of_close_scores():
    scores = np.array([9.0, 8.9, 0.2, 0.1, -7.0])
    pairs = np.array(list(combinations(range(5), 2)))
    weights = uncertainty(scores, pairs)
    drawn = np.concatenate([draw(weights, 2, seed) for seed in range(2_000)])
    share = np.bincount(drawn, minlength=len(pairs)) / 2_000
    order = np.argsort(-weights, kind="stable")
    close = {tuple(pairs[i]) for i in order[:2]}
    assert close == {(0, 1), (2, 3)}
    assert share[order[0]] > share[order[-1]] + 0.1
    probability = np.exp(weights) / np.exp(weights).sum()
    once = np.bincount([draw(weights, 1, s)[0] for s in range(4_000)], minlength=10) / 4_000
    np.testing.assert_allclose(once, probability, atol=4 * 0.5 / 4_000**0.5)  # 4 deviations


def test_uncertain_pairs_need_scores():
    with pytest.raises(InputError, match="by=TEACHER"):
        run(UncertainPairs(), [1, 2, 3])


@given(st.integers(2, 40), st.integers(0, 99), st.integers(2, 8), st.data())
def test_one_pass_of_windows_brings_up_what_is_carried(count, seed, window, data):
    stride = data.draw(st.integers(1, window - 1))
    relevance = shuffled(count, seed)
    _, result = run(Windows(window, stride), relevance)
    best = sorted(range(count), key=lambda i: -relevance[i])[: window - stride]
    assert sorted(result, key=lambda i: -result[i])[: len(best)] == best
    assert set(result) == set(range(count))


@given(st.integers(2, 40), st.integers(0, 99), st.integers(1, 5), st.integers(1, 45))
def test_a_heap_takes_out_the_best_in_order(count, seed, children, top):
    relevance = shuffled(count, seed)
    _, result = run(Heap(children, top), relevance)
    best = sorted(range(count), key=lambda i: -relevance[i])[:top]
    assert result == {i: 1 / rank for rank, i in enumerate(best, start=1)}


@given(st.integers(2, 60), st.integers(0, 99), st.integers(3, 12))
def test_the_best_wins_every_tournament_and_the_worst_none(count, seed, group):
    relevance = shuffled(count, seed)
    _, result = run(Tournament(group, 3), relevance)
    assert max(result, key=result.__getitem__) == relevance.index(count - 1)
    assert result[relevance.index(0)] == 0
    assert sorted(result) == list(range(count))


@pytest.mark.parametrize("strategy", LISTS, ids=lambda s: s.spec)
@given(st.integers(2, 30))
def test_garbage_ranks_nothing(strategy, count):
    _, result = run(strategy, list(range(count)), garbled=lambda shown: True)
    assert result == {}


@pytest.mark.parametrize("strategy", LISTS, ids=lambda s: s.spec)
@given(count=st.integers(2, 30), seed=st.integers(0, 99), share=st.sampled_from([0.2, 0.6]))
def test_only_candidates_that_an_answer_named_are_ranked(strategy, count, seed, share):
    garbled = {}
    coin = random.Random(seed)

    def broken(shown):
        return garbled.setdefault(shown, coin.random() < share)

    requests, result = run(strategy, shuffled(count, seed), broken)
    read = {i for batch in requests for shown in batch if not garbled[shown] for i in shown}
    assert set(result) <= read


def test_after_a_garbled_answer_the_list_is_shown_once_more_reversed():
    requests, result = run(Windows(4, 2), [3, 1, 4, 2], garbled=lambda shown: shown == (0, 1, 2, 3))
    assert requests == [[(0, 1, 2, 3)], [(3, 2, 1, 0)]]
    assert sorted(result, key=lambda i: -result[i]) == [2, 0, 3, 1]


def test_what_was_never_compared_is_not_ranked_together():
    """Six in windows of two; the third from below is garbled, so two parts are left."""
    relevance = [6, 5, 4, 3, 2, 1]
    _, result = run(Windows(2, 1), relevance, garbled=lambda shown: set(shown) == {2, 3})
    assert set(result) in ({0, 1, 2}, {3, 4, 5})


def test_an_answer_that_names_some_leaves_the_others_unranked():
    strategy = Windows(4, 2)
    steps = strategy.steps(CandidateList(4))
    next(steps)
    with pytest.raises(StopIteration) as finished:
        steps.send([Answer(order=(2, 1), status="repaired")])
    assert finished.value.value == {2: 1.0, 1: 0.5}


def test_a_candidate_that_a_later_window_leaves_out_loses_its_rank():
    """The first window carries 2 on; the second shows it and does not say where it belongs."""
    steps = Windows(2, 1).steps(CandidateList(3))
    assert next(steps)[0].shown == (1, 2)
    [second] = steps.send([Answer(order=(1, 0))])
    assert second.shown == (0, 2)
    with pytest.raises(StopIteration) as finished:
        steps.send([Answer(order=(0,), status="repaired")])
    assert finished.value.value == {0: 1.0}


def test_a_tournament_scores_only_whom_its_last_answer_named():
    """Two groups, of each two are named: the better one goes on, and one is lost in the final."""
    steps = Tournament(4, 1).steps(CandidateList(6))
    groups = [request.shown for request in next(steps)]
    assert sorted(map(len, groups)) == [3, 3]
    [final] = steps.send([Answer(order=(2, 0), status="repaired")] * 2)
    assert set(final.shown) == {group[2] for group in groups}
    with pytest.raises(StopIteration) as finished:
        steps.send([Answer(order=(1,), status="repaired")])
    losers = dict.fromkeys((group[0] for group in groups), 0.0)
    assert finished.value.value == {**losers, final.shown[1]: 1.0}


@given(st.integers(2, 40), st.integers(0, 99), st.integers(3, 9), st.sampled_from([0.3, 0.9]))
def test_a_tournament_ranks_only_candidates_that_were_named(count, seed, group, share):
    coin, named = random.Random(seed), set()
    steps = Tournament(group, 2).steps(CandidateList(count, seed=seed))
    pending = next(steps)
    with pytest.raises(StopIteration) as finished:
        while True:
            answers = []
            for request in pending:
                places = [p for p in range(len(request.shown)) if coin.random() < share] or [0]
                named |= {request.shown[place] for place in places}
                answers.append(Answer(order=tuple(places), status="repaired"))
            pending = steps.send(answers)
    assert set(finished.value.value) <= named


@pytest.mark.parametrize(
    "spec",
    [
        "listwise:org/model?window=4&stride=4",
        "listwise:org/model?window=1&stride=0",
        "listwise:org/model?how=heap&children=0",
        "listwise:org/model?how=tournament&group=2",
        "pairwise:org/model?pairs=adjacent&reach=0",
        "pairwise:org/model?pairs=uncertain&most=0",
    ],
)
def test_impossible_settings_are_refused(spec: str):
    with pytest.raises(InputError):
        strategy_in(spec)
