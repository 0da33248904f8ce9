"""Ranking by small sets: a heap whose comparisons name the best of a few, and tournaments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_kd.store.requests import Asking, CandidateList
from retrieval_kd.teachers.comparing.steps import (
    Step,
    at_least,
    by_rank,
    order_of,
    spec_of,
    together,
)


@dataclass(frozen=True)
class Heap:
    """Heap sort where one call names the best of a candidate and its `children` children.

    Set-wise prompting (Zhuang et al. 2024, https://arxiv.org/abs/2310.09497, section 3), there
    three children and the top 10. Candidates below `top` get no rank. If an answer cannot be parsed
    even the other way round, what was taken from the heap before stands, and nothing more.

    Example:
        >>> Heap(children=3, top=10).calls(100)
        85
    """

    children: int = 3
    top: int = 10

    def __post_init__(self) -> None:
        at_least(1, children=self.children, top=self.top)

    @property
    def spec(self) -> str:
        return spec_of("how=heap", self)

    def calls(self, count: int) -> int:
        build = sum(self._levels(node, count) for node in range(count))
        taken = range(1, min(self.top, count))
        return build + sum(self._levels(0, count - done) for done in taken)

    def ask(self, listed: CandidateList) -> Asking:
        heap = list(range(listed.count))
        for level in self._bottom_up(listed.count):
            steps = [self._sift(heap, node, listed.count) for node in level]
            if not all((yield from together(steps))):
                return {}
        ranked = heap[:1] if listed.count > 1 else []
        for left in range(listed.count - 1, max(0, listed.count - self.top), -1):
            heap[0] = heap[left]
            if not (yield from self._sift(heap, 0, left)):
                break
            ranked.append(heap[0])
        return by_rank(ranked)

    def _sift(self, heap: list[int], node: int, size: int) -> Step[bool]:
        """Let a node sink until none of its children is better; False: an answer was garbled."""
        while below := list(range(node * self.children + 1, (node + 1) * self.children + 1)):
            below = [child for child in below if child < size]
            if not below:
                break
            named = yield from order_of([heap[at] for at in [node, *below]])
            if not named:
                return False
            best = next(at for at in [node, *below] if heap[at] == named[0])
            if best == node:
                break
            heap[node], heap[best] = heap[best], heap[node]
            node = best
        return True

    def _levels(self, node: int, size: int) -> int:
        """How deep a node can sink."""
        levels = 0
        while node * self.children + 1 < size:
            node, levels = node * self.children + 1, levels + 1
        return levels

    def _bottom_up(self, count: int) -> list[list[int]]:
        """Nodes with children, by depth, the deepest first: a level's nodes do not meet."""
        levels: list[list[int]] = []
        first, width = 0, 1
        while first * self.children + 1 < count:
            nodes = range(first, first + width)
            levels.append([node for node in nodes if node * self.children + 1 < count])
            first, width = first + width, width * self.children
        return levels[::-1]


@dataclass(frozen=True)
class Tournament:
    """Groups are put in order, their better halves go on, until one group is left; `rounds` times.

    A candidate's score is the number of halvings it survived, those of the last group's order
    included: the mean over the rounds. As TourRank
    (Chen et al. 2024, https://arxiv.org/abs/2406.11678, section 3): groups mix first-stage ranks,
    and are shuffled anew in each round. A round with an answer that cannot be parsed even the other
    way round counts for nobody. Of a group whose order names some, the better half of those goes
    on; nobody said where the others stand, so they have no score of that round, whatever they
    survived before.

    Example:
        >>> Tournament(group=10, rounds=2).calls(100)
        42
    """

    group: int = 10
    rounds: int = 2

    def __post_init__(self) -> None:
        at_least(3, group=self.group)  # groups of one would be won by nobody's answer
        at_least(1, rounds=self.rounds)

    @property
    def spec(self) -> str:
        return spec_of("how=tournament", self)

    def calls(self, count: int) -> int:
        calls = int(count > 1)  # the final
        while count > self.group:
            sizes = [len(part) for part in _deal(range(count), self.group)]
            calls += len(sizes)
            count = sum(math.ceil(size / 2) for size in sizes)
        return calls * self.rounds

    def ask(self, listed: CandidateList) -> Asking:
        if listed.count < 2:
            return {}
        seeds = [(listed.seed, number) for number in range(self.rounds)]
        rounds = yield from together([self._round(listed.count, seed) for seed in seeds])
        scored: dict[int, list[int]] = {}
        for points in rounds:
            for candidate, survived in (points or {}).items():
                scored.setdefault(candidate, []).append(survived)
        return {i: sum(scored[i]) / len(scored[i]) for i in sorted(scored)}

    def _round(self, count: int, seed: tuple[int, int]) -> Step[dict[int, int] | None]:
        """Candidate → stages that it survived; None: an answer was garbled."""
        random, still = np.random.default_rng(seed), list(range(count))
        points = dict.fromkeys(still, 0)
        while still:
            groups = [random.permutation(part).tolist() for part in _deal(still, self.group)]
            orders = yield from together([order_of(group) for group in groups])
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


def _deal(candidates: Sequence[int], most: int) -> list[list[int]]:
    """As few groups of at most `most` as there must be, dealt like cards.

    Example:
        >>> _deal(range(5), 3)
        [[0, 2, 4], [1, 3]]
    """
    groups = math.ceil(len(candidates) / most)
    return [list(candidates[start::groups]) for start in range(groups)]
