"""Strategies for lists: sliding windows, a heap of small sets, and tournaments of groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retrieval_kd.errors import InputError
from retrieval_kd.store.requests import CandidateList, Request, Steps, Strategy, together


@dataclass(frozen=True)
class Windows(Strategy):
    """Windows from the end of the list to its top: each is put in order and its best move on.

    RankGPT (Sun et al. 2023, https://arxiv.org/abs/2304.09542, section 3.2) uses 20 and 10.
    `passes` > 1 starts again from the end with the order reached (RankZephyr, Pradeep et al. 2023,
    https://arxiv.org/abs/2312.02724, uses up to three).

    Args:
        stride: how far above the next window starts; window − stride candidates move on.

    Example:
        >>> Windows(window=20, stride=10).starts(100)
        [80, 70, 60, 50, 40, 30, 20, 10, 0]
        >>> Windows(window=20, stride=10).most_requests(100)
        9
    """

    choice = "how=windows"

    window: int = 20
    stride: int = 10
    passes: int = 1

    def __post_init__(self) -> None:
        if self.stride >= self.window:
            raise InputError(
                f"stride {self.stride} with windows of {self.window}: nothing would be carried on",
                remedy="give a stride below the window",
            )

    def starts(self, count: int) -> list[int]:
        """Start positions of the windows, from the end of the list; the top window starts at 0."""
        if count < 2:
            return []
        return [*range(count - self.window, 0, -self.stride), 0]

    def most_requests(self, count: int) -> int:
        return self.passes * len(self.starts(count))

    def steps(self, candidates: CandidateList) -> Steps[dict[int, float]]:
        ranking = _Ranking(list(range(candidates.count)))
        for _ in range(self.passes):
            for start in self.starts(candidates.count):
                shown = ranking.order[start : start + self.window]
                order = yield from _request_order(shown)
                if order:
                    ranking.put(start, shown, order)
        return _reciprocal_ranks(ranking.ranked())


@dataclass
class _Ranking:
    """The current order of the list, and the parts of it that answers have ranked.

    A candidate that its last answer did not name belongs to no part and gets no rank, because its
    position among the others is unknown. A window that names a candidate of the previous part joins
    that part. After unparsable windows there may be no such candidate, and a new part begins. Parts
    cannot be compared with each other: the largest is the result, or of equal ones the last, which
    is nearest the top.
    """

    order: list[int]
    part: dict[int, int] = field(default_factory=dict)  # candidate → number of its part

    def put(self, start: int, shown: Sequence[int], ranked: Sequence[int]) -> None:
        """Put the ranked candidates first, best first, then the others of the window."""
        others = [candidate for candidate in shown if candidate not in ranked]
        self.order[start : start + len(shown)] = [*ranked, *others]
        last = max(self.part.values(), default=0)
        joins = any(self.part.get(candidate) == last for candidate in ranked)
        self.part.update(dict.fromkeys(ranked, last if joins else last + 1))
        for candidate in others:
            self.part.pop(candidate, None)

    def ranked(self) -> list[int]:
        parts = list(self.part.values())
        best = max(set(parts), key=lambda part: (parts.count(part), part), default=0)
        return [candidate for candidate in self.order if self.part.get(candidate) == best]


@dataclass(frozen=True)
class Heap(Strategy):
    """Heap sort where one request finds the best of a candidate and its `children` children.

    Set-wise prompting (Zhuang et al. 2024, https://arxiv.org/abs/2310.09497, section 3) uses three
    children and the top 10. Candidates below `top` get no rank. If an answer cannot be parsed in
    either order, the candidates taken from the heap so far keep their ranks and the sort ends.

    Example:
        >>> Heap(children=3, top=10).most_requests(100)
        85
    """

    choice = "how=heap"

    children: int = 3
    top: int = 10

    def most_requests(self, count: int) -> int:
        build = sum(self._levels(node, count) for node in range(count))
        taken = range(1, min(self.top, count))
        return build + sum(self._levels(0, count - done) for done in taken)

    def steps(self, candidates: CandidateList) -> Steps[dict[int, float]]:
        heap = list(range(candidates.count))
        for level in self._bottom_up(candidates.count):
            steps = [self._sift(heap, node, candidates.count) for node in level]
            if not all((yield from together(steps))):
                return {}
        ranked = heap[:1] if candidates.count > 1 else []
        for left in range(candidates.count - 1, max(0, candidates.count - self.top), -1):
            heap[0] = heap[left]
            if not (yield from self._sift(heap, 0, left)):
                break
            ranked.append(heap[0])
        return _reciprocal_ranks(ranked)

    def _sift(self, heap: list[int], node: int, size: int) -> Steps[bool]:
        """Move a node down until no child is better; False if an answer was unparsable."""
        while below := list(range(node * self.children + 1, (node + 1) * self.children + 1)):
            below = [child for child in below if child < size]
            if not below:
                break
            order = yield from _request_order([heap[at] for at in [node, *below]])
            if not order:
                return False
            best = next(at for at in [node, *below] if heap[at] == order[0])
            if best == node:
                break
            heap[node], heap[best] = heap[best], heap[node]
            node = best
        return True

    def _levels(self, node: int, size: int) -> int:
        """How many levels a node can move down."""
        levels = 0
        while node * self.children + 1 < size:
            node, levels = node * self.children + 1, levels + 1
        return levels

    def _bottom_up(self, count: int) -> list[list[int]]:
        """Nodes with children by depth, deepest first; the nodes of a level share no children."""
        levels: list[list[int]] = []
        first, width = 0, 1
        while first * self.children + 1 < count:
            nodes = range(first, first + width)
            levels.append([node for node in nodes if node * self.children + 1 < count])
            first, width = first + width, width * self.children
        return levels[::-1]


@dataclass(frozen=True)
class Tournament(Strategy):
    """Put groups in order and keep the better halves until one group is left, in several rounds.

    A candidate's score is the number of halvings it survived, including those of the last group's
    order, averaged over rounds. As in TourRank (Chen et al. 2024, https://arxiv.org/abs/2406.11678,
    section 3), groups mix first-stage ranks and are shuffled in each round. A round with an answer
    that cannot be parsed in either order does not count. If an order names only some of a group,
    the better half of those advances; the position of the others is unknown, so they have no score
    in that round, whatever they survived before.

    Example:
        >>> Tournament(group=10, rounds=2).most_requests(100)
        42
    """

    choice = "how=tournament"

    group: int = 10
    rounds: int = 2

    def most_requests(self, count: int) -> int:
        calls = int(count > 1)  # the final
        while count > self.group:
            sizes = [len(part) for part in _deal(range(count), self.group)]
            calls += len(sizes)
            count = sum(math.ceil(size / 2) for size in sizes)
        return calls * self.rounds

    def steps(self, candidates: CandidateList) -> Steps[dict[int, float]]:
        if candidates.count < 2:
            return {}
        seeds = [(candidates.seed, number) for number in range(self.rounds)]
        rounds = yield from together([self._round(candidates.count, seed) for seed in seeds])
        scored: dict[int, list[int]] = {}
        for points in rounds:
            for candidate, survived in (points or {}).items():
                scored.setdefault(candidate, []).append(survived)
        return {i: sum(scored[i]) / len(scored[i]) for i in sorted(scored)}

    def _round(self, count: int, seed: tuple[int, int]) -> Steps[dict[int, int] | None]:
        """Candidate → halvings it survived; None if an answer was unparsable."""
        random, still = np.random.default_rng(seed), list(range(count))
        points = dict.fromkeys(still, 0)
        while still:
            groups = [random.permutation(part).tolist() for part in _deal(still, self.group)]
            orders = yield from together([_request_order(group) for group in groups])
            final, still = len(groups) == 1, []
            for group, order in zip(groups, orders, strict=True):
                if order is None:
                    return None
                for unnamed in set(group).difference(order):
                    del points[unnamed]
                left = len(order)
                while left > 1 and (final or left == len(order)):
                    left = math.ceil(left / 2)
                    for candidate in order[:left]:
                        points[candidate] += 1
                still += [] if final else order[:left]
            still.sort()
        return points


def _request_order(shown: Sequence[int]) -> Steps[tuple[int, ...] | None]:
    """Request an order of these candidates, and return those the answer names, best first.

    If the answer cannot be parsed, show the same candidates once more in reverse order, because a
    greedy model would repeat itself otherwise. Return None if that fails, too.
    """
    for order in (tuple(shown), tuple(reversed(shown))):
        [answer] = yield [Request(order)]
        if answer.order:
            return tuple(order[place] for place in answer.order)
    return None


def _reciprocal_ranks(ranking: Sequence[int]) -> dict[int, float]:
    """Candidates, best first → 1 / rank."""
    return {candidate: 1 / rank for rank, candidate in enumerate(ranking, start=1)}


def _deal(candidates: Sequence[int], most: int) -> list[list[int]]:
    """Deal candidates like cards to as few groups of at most `most` as possible."""
    groups = math.ceil(len(candidates) / most)
    return [list(candidates[start::groups]) for start in range(groups)]
