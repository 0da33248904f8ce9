"""How much a server may be asked: tokens and money, and the clean stop when one is used up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from retrieval_kd.errors import InputError


class Stopped(InputError):
    """No more is asked. What was answered is kept; the same command goes on from there."""


@dataclass
class Limits:
    """What one command may spend; None is no limit.

    A call is begun only if it fits into what is left after all calls under way, each counted with
    all the tokens it may write. So the limits hold as well as the lengths of prompts are known.

    Args:
        most_tokens: tokens read and written.
        most_cost: in the currency of the prices.
        prompt_price: of a million tokens read.
        answer_price: of a million tokens written.

    Example:
        >>> limits = Limits(most_cost=1.0, prompt_price=0.5, answer_price=2.0)
        >>> limits.cost(1_000_000, 100_000)
        0.7
        >>> limits.fits(1_000_000, 100_000), limits.fits(1_000_000, 300_000)
        (True, False)
    """

    most_tokens: int | None = None
    most_cost: float | None = None
    prompt_price: float = 0.0
    answer_price: float = 0.0
    spent: tuple[int, int] = (0, 0)  # tokens read, written
    under_way: tuple[int, int] = (0, 0)
    _settled: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def __post_init__(self) -> None:
        for name in ("most_tokens", "most_cost", "prompt_price", "answer_price"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"{name} is {value}", remedy="give a number that is not negative")
        if self.most_cost is not None and not (self.prompt_price or self.answer_price):
            raise InputError(
                "a limit of cost needs the server's prices",
                remedy="give prompt_price and answer_price (--prompt-price, --answer-price), of a "
                "million tokens",
            )

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt_price + answer_tokens * self.answer_price) / 1e6

    def fits(self, prompt_tokens: int, answer_tokens: int) -> bool:
        """Whether a call of this size may be begun now."""
        read = self.spent[0] + self.under_way[0] + prompt_tokens
        written = self.spent[1] + self.under_way[1] + answer_tokens
        tokens = self.most_tokens is None or read + written <= self.most_tokens
        return tokens and (self.most_cost is None or self.cost(read, written) <= self.most_cost)

    async def begin(self, prompt_tokens: int, answer_tokens: int) -> None:
        """Wait until a call fits, which it may once shorter answers than feared have come.

        Raises:
            Stopped: it will not fit.
        """
        while not self.fits(prompt_tokens, answer_tokens):
            if self.under_way == (0, 0):
                raise self._stop()
            self._settled.clear()
            await self._settled.wait()
        self._add(prompt_tokens, answer_tokens)

    def settle(
        self, prompt_tokens: int, answer_tokens: int, spent: tuple[int, int] = (0, 0)
    ) -> None:
        """A call that was begun is over and has `spent` so many tokens."""
        self._add(-prompt_tokens, -answer_tokens)
        self.spent = (self.spent[0] + spent[0], self.spent[1] + spent[1])
        self._settled.set()

    def forget_calls(self) -> None:
        """No call is under way any more: they were interrupted. An event is of one event loop."""
        self.under_way, self._settled = (0, 0), asyncio.Event()

    def _add(self, prompt_tokens: int, answer_tokens: int) -> None:
        self.under_way = (
            self.under_way[0] + prompt_tokens,
            self.under_way[1] + answer_tokens,
        )

    def _stop(self) -> Stopped:
        used = f"{self.spent[0]:,} tokens read and {self.spent[1]:,} written"
        if self.most_cost is not None:
            used += f", which cost {self.cost(*self.spent):.4g}"
        return Stopped(
            f"the next call would pass the limit of this command ({used})",
            remedy="the same command goes on from here, with the same limit or another",
        )
