"""What pairwise and listwise teachers are asked, what they answer, and in which order to ask.

A strategy is a generator: it yields the requests it wants next and is sent their answers. Those
that need earlier answers (sorting, sliding windows) and those that do not (all pairs) look alike to
`ask.py`, which runs many queries' strategies at once and batches what they want.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from scipy.special import expit

from retrieval_kd.data.texts import Document
from retrieval_kd.store.key import TeacherKey


def log_odds_of(answer: Answer) -> float:
    """log p(first) − log p(second); of an answer in words ±∞; NaN where there was none.

    Example:
        >>> log_odds_of(Answer("B", order=(1, 0))), log_odds_of(Answer(log_odds=0.5))
        (-inf, 0.5)
    """
    if answer.log_odds is not None:
        return answer.log_odds
    if answer.order is None:
        return float("nan")
    return float("inf") if answer.order[0] == 0 else float("-inf")


def _first(answer: Answer) -> float | None:
    odds = log_odds_of(answer)
    return None if odds != odds else float(expit(odds))


def _turned(probability: float | None) -> float | None:
    return None if probability is None else 1 - probability


Status = Literal["ok", "repaired", "unparsable"]


@dataclass(frozen=True)
class Request:
    """Documents of one query in the order they are shown, as positions in its candidate list."""

    shown: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """A request with its texts: what a teacher is given."""

    query: str
    documents: tuple[Document, ...]


@dataclass(frozen=True)
class Answer:
    """What the teacher said of a request, as it said it.

    Args:
        text: the words; empty where only probabilities were asked.
        logs: log-probabilities of the labels of the documents shown, where they were asked; NaN
            where the teacher did not tell.
        log_odds: pairwise: log p(first is better) − log p(second is better), where probabilities
            were asked. A pairwise teacher that answered in words has an `order` instead.
        order: listwise: places in `shown`, best first; all of them, or, where only the best was
            asked (set-wise), those that were named. None where the answer could not be parsed.
        status: `repaired`: doubles or strangers were left out, or missing ones were left unordered.
    """

    text: str = ""
    logs: tuple[float, ...] | None = None
    log_odds: float | None = None
    order: tuple[int, ...] | None = None
    status: Status = "ok"


@dataclass(frozen=True)
class CandidateList:
    """One query's candidates as a strategy sees them: numbered in the order of the first stage.

    Args:
        scores: a pointwise teacher's, higher is better; for strategies that choose by them.
        seed: made of the query and its candidates, so that a resumed strategy draws the same.
    """

    count: int
    scores: tuple[float, ...] | None = None
    seed: int = 0


# Answers come in the order of the requests; a query of which a call failed is asked no further.
# What is returned: candidate → score, higher is better, of those that the answers rank; empty where
# the strategy only collects pairs, which are aggregated later.
Asking = Generator[Sequence[Request], Sequence[Answer], dict[int, float]]


class Strategy(Protocol):
    """Which requests to make of a query's candidates."""

    @property
    def spec(self) -> str:
        """How a user writes it, such as `pairs=adjacent&reach=2`; noted in the store."""
        ...

    def calls(self, count: int) -> int:
        """The most requests for so many candidates, if every answer can be parsed."""
        ...

    def ask(self, listed: CandidateList) -> Asking:
        """The requests of one query."""
        ...


class ComparingTeacher(Protocol):
    """What `ask.py` needs of a pairwise or listwise teacher.

    Args:
        at_once: how many questions are worth giving together; answers are stored after as many.
        by: the pointwise teacher in the store whose scores its strategy chooses by, if it does.
    """

    at_once: int
    by: str | None

    @property
    def key(self) -> TeacherKey: ...

    @property
    def strategy(self) -> Strategy: ...

    def answer(self, questions: Sequence[Question]) -> list[Answer | None]:
        """One answer per question, in their order; None where the call failed."""
        ...
