"""Sliding windows over a list that is longer than a prompt: which windows, and what they rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from retrieval_kd.errors import InputError
from retrieval_kd.store.requests import Asking, CandidateList
from retrieval_kd.teachers.comparing.steps import at_least, by_rank, order_of, spec_of


@dataclass(frozen=True)
class Windows:
    """From the end of the list to its top: each window is put in order, its best go on.

    RankGPT (Sun et al. 2023, https://arxiv.org/abs/2304.09542, section 3.2), there 20 and 10.
    `passes` > 1 starts again from the end with the order reached (RankZephyr, Pradeep et al. 2023,
    https://arxiv.org/abs/2312.02724, uses up to three).

    Args:
        window: candidates in a prompt.
        stride: how far the next window starts above; window − stride candidates go on.
        passes: how often.

    Example:
        >>> Windows(window=20, stride=10).starts(100)
        [80, 70, 60, 50, 40, 30, 20, 10, 0]
        >>> Windows(window=20, stride=10).calls(100)
        9
    """

    window: int = 20
    stride: int = 10
    passes: int = 1

    def __post_init__(self) -> None:
        at_least(2, window=self.window)
        at_least(1, stride=self.stride, passes=self.passes)
        if self.stride >= self.window:
            raise InputError(
                f"stride {self.stride} with windows of {self.window}: nothing would be carried on",
                remedy="give a stride below the window",
            )

    @property
    def spec(self) -> str:
        return spec_of("how=windows", self)

    def starts(self, count: int) -> list[int]:
        """Where windows begin, the last part of the list first; the top window begins at 0."""
        if count < 2:
            return []
        return [*range(count - self.window, 0, -self.stride), 0]

    def calls(self, count: int) -> int:
        return self.passes * len(self.starts(count))

    def ask(self, listed: CandidateList) -> Asking:
        ranking = _Ranking(list(range(listed.count)))
        for _ in range(self.passes):
            for start in self.starts(listed.count):
                shown = ranking.order[start : start + self.window]
                named = yield from order_of(shown)
                if named:
                    ranking.put(start, shown, named)
        return by_rank(ranking.ranked())


@dataclass
class _Ranking:
    """The list as it stands, and which of its candidates an answer has put in their place.

    A candidate that the last answer about it did not name is in no part and gets no rank: nobody
    said where it stands among the others. A window that names a candidate of the part before joins
    it; after windows that could not be parsed there may be none, and a new part begins. Parts
    cannot be compared; the largest is the result, of equal ones the last, which is nearest the top.
    """

    order: list[int]
    part: dict[int, int] = field(default_factory=dict)  # candidate → number of its part

    def put(self, start: int, shown: Sequence[int], named: Sequence[int]) -> None:
        """The window's named candidates first, best first, then those that were not named."""
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
