"""The vocabulary of comparing teachers: strategies, their requests, and the teacher's answers.

A strategy chooses which of a query's candidates to compare. Each request becomes one prompt that
shows two or more candidates; an answer is what the teacher returned for it. A strategy is a
generator: it yields the requests it needs next and is sent their answers. Strategies that depend on
earlier answers (sorting, sliding windows) and those that do not (all pairs) therefore look alike,
and `teachers/comparing/run_strategies.py` can batch the requests of many queries.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Protocol, TypeVar

from retrieval_kd.data.texts import Document
from retrieval_kd.store.key import TeacherKey

Status = Literal["ok", "repaired", "unparsable"]


@dataclass(frozen=True)
class CandidateList:
    """One query's candidates as a strategy sees them: numbered from 0 in first-stage order.

    Args:
        scores: of a pointwise teacher, higher is better, for strategies that choose by them.
        seed: derived from the query and its candidates, so a resumed strategy draws the same.
    """

    count: int
    scores: tuple[float, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """Candidates to show in one prompt, in this order, as positions in the candidate list."""

    shown: tuple[int, ...]


@dataclass(frozen=True)
class RequestTexts:
    """The texts of a request: the input of a comparing teacher."""

    query: str
    documents: tuple[Document, ...]


@dataclass(frozen=True)
class Answer:
    """A teacher's answer to one request.

    Args:
        text: what the model wrote; empty if only probabilities were read.
        logs: log-probabilities of the labels of the documents shown; NaN where the model did not
            report one; None if only words were read.
        log_odds: pairwise: log p(first is better) − log p(second is better). A pairwise teacher
            that answers in words has an `order` instead.
        order: positions in `shown`, best first. It may name only some of the documents; a set-wise
            answer names only the best. None if the answer could not be parsed.
        status: `repaired` means that repeated or invalid labels were removed, or that some
            documents are missing from the order.
    """

    text: str = ""
    logs: tuple[float, ...] | None = None
    log_odds: float | None = None
    order: tuple[int, ...] | None = None
    status: Status = "ok"


def log_odds_of(answer: Answer) -> float:
    """log p(first) − log p(second): ±∞ for an answer in words, NaN for an unparsable one.

    Example:
        >>> log_odds_of(Answer("B", order=(1, 0))), log_odds_of(Answer(log_odds=0.5))
        (-inf, 0.5)
    """
    if answer.log_odds is not None:
        return answer.log_odds
    if answer.order is None:
        return float("nan")
    return float("inf") if answer.order[0] == 0 else float("-inf")


# A generator that yields requests, is sent one answer for each in the same order, and returns a
# result. It is closed early if a call failed.
Result = TypeVar("Result")
Steps = Generator[Sequence[Request], Sequence[Answer], Result]


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


@dataclass(frozen=True)
class Strategy:
    """The choice of which candidates to compare. Its fields are its settings."""

    choice: ClassVar[str]  # as a user writes it, such as `pairs=adjacent`

    @property
    def spec(self) -> str:
        """The strategy as a user writes it, such as `pairs=adjacent&reach=2`; stored as such."""
        settings = [f"{field.name}={getattr(self, field.name)}" for field in fields(self)]
        return "&".join([self.choice, *settings])

    def most_requests(self, count: int) -> int:
        """Upper bound on the requests for `count` candidates, if every answer can be parsed."""
        raise NotImplementedError

    def steps(self, candidates: CandidateList) -> Steps[dict[int, float]]:
        """Compare one query's candidates.

        Returns:
            Candidate → score, higher is better, for candidates that the answers rank. It is empty
            for pairs, which are aggregated later.
        """
        raise NotImplementedError


class ComparingTeacher(Protocol):
    """A pairwise or listwise teacher.

    Args:
        at_once: how many requests to answer in one batch; answers are stored after each batch.
        by: the stored pointwise teacher whose scores the strategy chooses by, if any.
    """

    at_once: int
    by: str | None

    @property
    def key(self) -> TeacherKey: ...

    @property
    def strategy(self) -> Strategy: ...

    def answer(self, requests: Sequence[RequestTexts]) -> list[Answer | None]:
        """One answer for each request, in order; None where the call failed."""
        ...
