"""What pairwise and listwise teachers are asked, what they answer, and in which order to ask.

A strategy is a generator: it yields the requests it wants next and is sent their answers. Those
that need earlier answers (sorting, sliding windows) and those that do not (all pairs) look alike to
`ask.py`, which runs many queries' strategies at once and batches what they want.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "repaired", "unparsable"]


@dataclass(frozen=True)
class Request:
    """Documents of one query in the order they are shown, as positions in its candidate list."""

    shown: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What the teacher said of a request, as it said it.

    Args:
        text: the words; empty where only probabilities were asked.
        log_odds: pairwise: log p(first is better) − log p(second is better).
        order: listwise: places in `shown`, best first; all of them, or, where only the best was
            asked (set-wise), those that were named. None where the answer could not be parsed.
        status: `repaired`: doubles or strangers were left out, or missing ones were left unordered.
    """

    text: str = ""
    log_odds: float | None = None
    order: tuple[int, ...] | None = None
    status: Status = "ok"


# Answers come in the order of the requests; None: the call failed and may be asked again.
Asking = Generator[Sequence[Request], Sequence[Answer | None], None]
Strategy = Callable[[int], Asking]  # number of candidates, first-stage order → what to ask
