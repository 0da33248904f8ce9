"""What pair and list strategies share: steps in lockstep, and a check of options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from retrieval_kd.errors import InputError
from retrieval_kd.store.requests import Answer, Request, Result, Steps


def together(steps: Sequence[Steps[Result]]) -> Steps[list[Result]]:
    """Run several steps in lockstep: join their requests until the last has returned its result."""
    results: dict[int, Result] = {}
    pending: dict[int, Sequence[Request]] = {}
    for number, step in enumerate(steps):
        _advance(number, step, None, pending, results)
    while pending:
        current = dict(pending)
        answers = iter((yield [request for requests in current.values() for request in requests]))
        for number, requests in current.items():
            own = [next(answers) for _ in requests]
            _advance(number, steps[number], own, pending, results)
    return [results[number] for number in range(len(steps))]


def _advance(
    number: int,
    step: Steps[Result],
    answers: Sequence[Answer] | None,
    pending: dict[int, Sequence[Request]],
    results: dict[int, Result],
) -> None:
    try:
        pending[number] = next(step) if answers is None else step.send(answers)
    except StopIteration as stop:
        pending.pop(number, None)
        results[number] = stop.value


def refuse_unused(options: BaseModel, choice: str, belongs_to: Mapping[str, str]) -> None:
    """Refuse an explicit option that the chosen strategy would ignore.

    Args:
        choice: the option that chooses the strategy.
        belongs_to: option → the strategy that uses it.
    """
    chosen = getattr(options, choice)
    for name, owner in belongs_to.items():
        if name in options.model_fields_set and chosen != owner:
            raise InputError(
                f"the option {name!r} goes with {choice}={owner}, not with {choice}={chosen}",
                remedy="leave one of them out",
            )
