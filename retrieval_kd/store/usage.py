"""What a scoring run did and what it cost. Costs are added to usage.jsonl in the teacher's folder.

A line of that file holds the counts of a run, or of a stored part of it, never a key, an address
or a text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from retrieval_kd.errors import InputError
from retrieval_kd.files import check_seal, named_writes, sealed
from retrieval_kd.store.shards import locked

USAGE_FILE = "usage.jsonl"


@dataclass
class ScoreReport:
    """Counts of one scoring run: pairs of a pointwise teacher, requests of a comparing one.

    Args:
        pairs: wanted.
        reused: already in the store.
        scored: answered in this run.
        stale: of `scored`, those stored before for other texts under the same IDs.
        missing: the call failed; they are not in the store and are tried again in the next run.
        noun: what is counted, for messages.
        unfinished: queries whose strategy stopped because a call failed.
        repaired: of `scored`, orders with repeated, invalid or missing labels.
        unparsable: of `scored`, answers without an order; they rank nothing.
        unlisted: of `missing`, answers whose likeliest first words lack the options; see `why`.
        why: what the likeliest first words of such answers were, and the remedy.
        failure: the most frequent reason of failed calls, with its count.
    """

    teacher: str
    fingerprint: str
    pairs: int = 0
    reused: int = 0
    scored: int = 0
    stale: int = 0
    seconds: float = 0.0
    missing: int = 0
    noun: str = "pairs"
    unfinished: int = 0
    repaired: int = 0
    unparsable: int = 0
    unlisted: int = 0
    why: str = ""
    failure: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of any candidate."""
        return self.pairs > 0 and self.reused + self.scored - self.unparsable == 0

    def unanswered(self, who: str) -> list[str]:
        """What is missing and why, a line for each reason; `who` asks for the rest again."""
        lines, unlisted = [], min(self.unlisted, self.missing)
        if unlisted:
            lines.append(f"{unlisted} {self.noun} were not answered: {self.why}")
        if self.missing > unlisted:
            queries = f" ({self.unfinished} queries are unfinished)" if self.unfinished else ""
            why = f": {self.failure}" if self.failure else ""
            again = f"{who} asks for them again"
            if self.failure and not self.scored:  # asking again would hardly help
                again = (
                    f"nothing was: check the server's address, its log and the model; then {again}"
                )
            lines.append(
                f"{self.missing - unlisted} {self.noun} were not answered{queries}{why}; {again}"
            )
        return lines


@dataclass
class Usage:
    """Use of a model: calls, tokens read and written, seconds spent waiting for answers."""

    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, sequences: Sequence[Sequence[int]], written: int, started: float) -> None:
        """Count one call for each token sequence read, since `started` on the monotonic clock."""
        self.calls += len(sequences)
        self.prompt_tokens += sum(map(len, sequences))
        self.answer_tokens += written
        self.seconds += time.monotonic() - started


@dataclass
class Spent(Usage):
    """Usage with its cost, in the currency of the configured prices (0 without prices)."""

    cost: float = 0.0

    def since(self, before: Spent) -> Spent:
        """The difference from an earlier state."""
        earlier = asdict(before).items()
        return Spent(**{name: getattr(self, name) - value for name, value in earlier})


def record_usage(folder: Path, spent: Spent) -> None:
    """Add a line to a teacher's usage.jsonl, unless no call was made."""
    if not spent.calls:
        return
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(spent)}
    path = folder / USAGE_FILE
    with named_writes(path), locked(folder), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(sealed(line)) + "\n")


def read_usage(folder: Path) -> Spent | None:
    """Sum up a teacher's usage.jsonl; None if it is missing, as for imported scores.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> record_usage(folder, Spent(calls=3, prompt_tokens=70))
        >>> record_usage(folder, Spent(calls=2, failed=1, prompt_tokens=20, cost=0.5))
        >>> read_usage(folder)
        Spent(calls=5, prompt_tokens=90, answer_tokens=0, failed=1, seconds=0.0, cost=0.5)
    """
    path = folder / USAGE_FILE
    if not path.exists():
        return None
    total = Spent()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, text in enumerate(lines, start=1):
        try:
            line = check_seal(json.loads(text), path)
            for field in fields(Spent):
                setattr(total, field.name, getattr(total, field.name) + line[field.name])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"not a line of usage: {error!r}", file=path, line=number, remedy="delete the line"
            ) from error
    return total
