"""What people see while and after a command works: printed lines, tables, one progress bar.

All three pass foreign texts (IDs, names, a server's words) through `errors.shown`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from retrieval_kd.errors import LONGEST_TEXT, shown


def say(text: object = "", *, error: bool = False) -> None:
    """Print a text, on standard output or standard error."""
    print(_lines(str(text), LONGEST_TEXT), file=sys.stderr if error else sys.stdout, flush=True)


class Screen(Console):
    """rich's console; what is printed on it contains no escapes but its own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text
            own = segment.control or text == "\n"
            yield segment if own else Segment(_lines(text, None), segment.style)


def _lines(text: str, most: int | None) -> str:
    return "\n".join(shown(line, most) for line in text.split("\n"))


console = Screen(stderr=True)


class Bar:
    """A progress bar. Without a terminal (in a log) it prints a line every 15 seconds."""

    def __init__(self, description: str, total: int, progress: Progress | None) -> None:
        self.description, self.total, self.done, self._progress = description, total, 0, progress
        self._task = progress.add_task(description, total=total) if progress else None
        self._start = self._last = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, amount)
            return
        now = time.monotonic()
        if now - self._last >= 15 and self.done:
            self._last = now
            left = (now - self._start) / self.done * (self.total - self.done)
            say(f"{self.description}: {self.done}/{self.total}, {left:.0f} s left", error=True)


@contextmanager
def bar(description: str, total: int) -> Iterator[Bar]:
    """Show description, bar, done/total, elapsed time and ETA on standard error.

    Example:
        >>> with bar("counting", 3) as progress:
        ...     for _ in range(3):
        ...         progress.advance()
    """
    if not console.is_terminal:
        yield Bar(description, total, None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),  # a name may contain [brackets]
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(description, total, progress)
