"""The sliding-window strategy, for lists that are longer than a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from retrieval_kd.errors import InputError
from retrieval_kd.store.requests import CandidateList, Steps
from retrieval_kd.teachers.comparing.steps import (
    check_at_least,
    reciprocal_ranks,
    request_order,
    spec_of,
)


@dataclass(frozen=True)
class Windows:
    """Windows from the end of the list to its top: each is put in order and its best move on.

    RankGPT (Sun et al. 2023, https://arxiv.org/abs/2304.09542, section 3.2) uses 20 and 10.
    `passes` > 1 starts again from the end with the order reached (RankZephyr, Pradeep et al. 2023,
    https://arxiv.org/abs/2312.02724, uses up to three).

    Args:
        window: candidates in a prompt.
        stride: how far above the next window starts; window − stride candidates move on.
        passes: how often to go through the list.

    Example:
        >>> Windows(window=20, stride=10).starts(100)
        [80, 70, 60, 50, 40, 30, 20, 10, 0]
        >>> Windows(window=20, stride=10).most_requests(100)
        9
    """

    window: int = 20
    stride: int = 10
    passes: int = 1

    def __post_init__(self) -> None:
        check_at_least(2, window=self.window)
        check_at_least(1, stride=self.stride, passes=self.passes)
        if self.stride >= self.window:
            raise InputError(
                f"stride {self.stride} with windows of {self.window}: nothing would be carried on",
                remedy="give a stride below the window",
            )

    @property
    def spec(self) -> str:
        return spec_of("how=windows", self)

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
                named = yield from request_order(shown)
                if named:
                    ranking.put(start, shown, named)
        return reciprocal_ranks(ranking.ranked())


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

    def put(self, start: int, shown: Sequence[int], named: Sequence[int]) -> None:
        """Put the named candidates first, best first, then the others of the window."""
        unnamed = [candidate for candidate in shown if candidate not in named]
        self.order[start : start + len(shown)] = [*named, *unnamed]
        last = max(self.part.values(), default=0)
        joins = any(self.part.get(candidate) == last for candidate in named)
        self.part.update(dict.fromkeys(named, last if joins else last + 1))
        for candidate in unnamed:
            self.part.pop(candidate, None)

    def ranked(self) -> list[int]:
        parts = list(self.part.values())
        best = max(set(parts), key=lambda part: (parts.count(part), part), default=0)
        return [candidate for candidate in self.order if self.part.get(candidate) == best]
