"""What one command may spend on a server, in tokens and money, and the clean stop at the limit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.llm.server.settings import ServerSettings


class Stopped(InputError):
    """No more calls are made. Answers are kept; the same command continues from there."""


@dataclass
class Budget:
    """The tokens spent, and the limits in the server's settings.

    A call starts only if it fits into what is left after all calls under way, each counted with
    all the tokens it may write. So the limits hold as well as the lengths of prompts are known.

    Example:
        >>> prices = {"prompt_price": 0.5, "answer_price": 2.0}
        >>> budget = Budget(ServerSettings(url="http://127.0.0.1:8000/v1", max_cost=1, **prices))
        >>> budget.fits(1_000_000, 100_000), budget.fits(1_000_000, 300_000)
        (True, False)
    """

    settings: ServerSettings
    spent: tuple[int, int] = (0, 0)  # tokens read, written
    under_way: tuple[int, int] = (0, 0)
    _settled: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def fits(self, prompt_tokens: int, answer_tokens: int) -> bool:
        """Whether a call of this size may start now."""
        read = self.spent[0] + self.under_way[0] + prompt_tokens
        written = self.spent[1] + self.under_way[1] + answer_tokens
        most_tokens, most_cost = self.settings.max_tokens, self.settings.max_cost
        if most_tokens is not None and read + written > most_tokens:
            return False
        return most_cost is None or self.settings.cost(read, written) <= most_cost

    async def begin(self, prompt_tokens: int, answer_tokens: int) -> None:
        """Wait until a call fits: calls under way may turn out shorter than their upper bound.

        Raises:
            Stopped: the call does not fit and no other call is under way.
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
        """End a call that began with these tokens, and count what it has really spent."""
        self._add(-prompt_tokens, -answer_tokens)
        self.spent = (self.spent[0] + spent[0], self.spent[1] + spent[1])
        self._settled.set()

    def forget_calls(self) -> None:
        """Drop interrupted calls. The event is renewed because it belongs to one event loop."""
        self.under_way, self._settled = (0, 0), asyncio.Event()

    def _add(self, prompt_tokens: int, answer_tokens: int) -> None:
        read, written = self.under_way
        self.under_way = (read + prompt_tokens, written + answer_tokens)

    def _stop(self) -> Stopped:
        used = f"{self.spent[0]:,} tokens read and {self.spent[1]:,} written"
        if self.settings.max_cost is not None:
            used += f", which cost {self.settings.cost(*self.spent):.4g}"
        return Stopped(
            f"the next call would pass the limit of this command ({used})",
            remedy="the same command resumes from here, with the same limit or a different one",
        )
