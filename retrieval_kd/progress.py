"""One progress bar for everything that takes longer than a few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)


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
            print(
                f"{self.description}: {self.done}/{self.total}, {left:.0f} s left", file=sys.stderr
            )


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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(description, total, progress)
