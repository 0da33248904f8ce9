"""What one stage asks of the machine: works, each an amount of one operation, and their sums."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Work:
    """An amount of one operation.

    Attributes:
        what: the operation, for people, such as `pairs scored`.
        count: how often, in the unit that `what` names.
        tokens: tokens that a model reads for it, after cutting (tokens).
        flops: floating-point operations of its model; 0 where no transformer works.
        speed: name of the recipe and of the speed in it that say how long it takes; empty: none.
        amount: in the unit of that speed.
    """

    what: str
    count: float
    tokens: float = 0.0
    flops: float = 0.0
    speed: tuple[str, str] = ("", "")
    amount: float = 0.0

    def times(self, number: float) -> Work:
        """The same work so many times."""
        return replace(
            self,
            count=self.count * number,
            tokens=self.tokens * number,
            flops=self.flops * number,
            amount=self.amount * number,
        )


@dataclass(frozen=True)
class Calls:
    """Calls of a server.

    Attributes:
        calls: requests, without repeated ones.
        prompt_tokens, answer_tokens: read and written there (tokens).
        price: of these tokens, in the currency of the prices; None without prices.
        minutes: at least, where the requests per minute are limited; else None.
    """

    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    price: float | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class StageWork:
    """All works of one stage, and what it needs of the disk and the memory.

    Attributes:
        disk: bytes that it writes and leaves, or of a training holds while it works.
        memory: bytes of models, optimizer and activations, by the formulas of `models/shapes.py`.
        at_most: counts are upper bounds, since an earlier stage decides.
    """

    works: tuple[Work, ...] = ()
    calls: Calls | None = None
    disk: float = 0.0
    memory: float = 0.0
    at_most: bool = False

    @property
    def flops(self) -> float:
        return sum(work.flops for work in self.works)

    @property
    def tokens(self) -> float:
        return sum(work.tokens for work in self.works)

    def count(self, what: str) -> int:
        """How often an operation is done, such as `pairs scored`."""
        return round(sum(work.count for work in self.works if work.what == what))
