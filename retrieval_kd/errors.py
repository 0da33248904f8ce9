"""The exception for wrong input, and the record of what was dropped from the input."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger("retrieval_kd")


class InputError(Exception):
    """A mistake in the user's input; the command line prints it without a traceback.

    Example:
        >>> str(InputError("duplicate document ID", file="corpus.jsonl", line=7, id="d1",
        ...                remedy="keep one of the two lines"))
        'corpus.jsonl:7: duplicate document ID (id d1). To fix: keep one of the two lines.'
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        id: str | None = None,
        remedy: str = "",
    ) -> None:
        self.problem, self.file, self.line, self.id, self.remedy = problem, file, line, id, remedy
        where = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        who = "" if id is None else f" (id {id})"
        end = "" if remedy.endswith((".", "?")) else "."
        fix = f" To fix: {remedy}{end}" if remedy else ""
        super().__init__(f"{where}{problem}{who}{'.' if fix else ''}{fix}")


@dataclass
class Drops:
    """Counts of what was left out and why, with the first example of each reason.

    Example:
        >>> drops = Drops(); drops.add("empty document", "d3"); drops.add("empty document", "d9")
        >>> drops.summary()
        ['2 × empty document (first: d3)']
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str, count: int = 1) -> None:
        self.counts[reason] += count
        self.first.setdefault(reason, example)

    def summary(self) -> list[str]:
        return [f"{n} × {why} (first: {self.first[why]})" for why, n in self.counts.items()]

    def warn(self, what: str) -> None:
        """Log one warning per reason, each with its count."""
        for entry in self.summary():
            log.warning("%s: %s", what, entry)
