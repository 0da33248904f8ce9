"""What strategies are built of: asking for one order, again if it was garbled, and in lockstep."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import BaseModel

from retrieval_kd.errors import InputError
from retrieval_kd.store.requests import Answer, Request

Result = TypeVar("Result")
Step = Generator[Sequence[Request], Sequence[Answer], Result]


def order_of(shown: Sequence[int]) -> Step[tuple[int, ...] | None]:
    """The candidates of `shown` that the teacher named, best first; None: no order was to be had.

    If the answer cannot be parsed, the same candidates are shown once more the other way round:
    a greedy model would only repeat itself.
    """
    for order in (tuple(shown), tuple(reversed(shown))):
        [answer] = yield [Request(order)]
        if answer.order:
            return tuple(order[place] for place in answer.order)
    return None


def together(steps: Sequence[Step[Result]]) -> Step[list[Result]]:
    """Several steps at once: what they want in one request, until the last has its result."""
    results: dict[int, Result] = {}
    waiting: dict[int, Sequence[Request]] = {}
    for number, step in enumerate(steps):
        _advance(number, step, None, waiting, results)
    while waiting:
        asked = dict(waiting)
        answers = iter((yield [request for wanted in asked.values() for request in wanted]))
        for number, wanted in asked.items():
            given = [next(answers) for _ in wanted]
            _advance(number, steps[number], given, waiting, results)
    return [results[number] for number in range(len(steps))]


def _advance(
    number: int,
    step: Step[Result],
    given: Sequence[Answer] | None,
    waiting: dict[int, Sequence[Request]],
    results: dict[int, Result],
) -> None:
    try:
        waiting[number] = next(step) if given is None else step.send(given)
    except StopIteration as done:
        waiting.pop(number, None)
        results[number] = done.value


def by_rank(ranked: Sequence[int]) -> dict[int, float]:
    """Candidates, best first → 1 / rank.

    Example:
        >>> by_rank([4, 0])
        {4: 1.0, 0: 0.5}
    """
    return {candidate: 1 / rank for rank, candidate in enumerate(ranked, start=1)}


def spec_of(choice: str, strategy: Any) -> str:
    """`CHOICE&name=value&…`: a strategy as a user writes it; its fields are the names."""
    named = [f"{field.name}={getattr(strategy, field.name)}" for field in fields(strategy)]
    return "&".join([choice, *named])


def at_least(least: int, **numbers: int) -> None:
    """Refuse a setting below `least`."""
    for name, number in numbers.items():
        if number < least:
            raise InputError(f"{name} is {number}", remedy=f"give at least {least}")


def refuse_stray(options: BaseModel, choice: str, goes_with: Mapping[str, str]) -> None:
    """Refuse an option that the chosen strategy does not have; it would be ignored.

    Args:
        choice: the option that chooses the strategy.
        goes_with: option → the choice it belongs to.
    """
    chosen = getattr(options, choice)
    for name, wanted in goes_with.items():
        if name in options.model_fields_set and chosen != wanted:
            raise InputError(
                f"the option {name!r} goes with {choice}={wanted}, not with {choice}={chosen}",
                remedy="leave one of them out",
            )
