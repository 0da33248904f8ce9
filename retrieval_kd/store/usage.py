"""What a teacher's answers have cost: a line per command, beside them in the store.

Lines are only ever added. They hold counts, never a key, an address or a text.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from retrieval_kd.errors import InputError
from retrieval_kd.store.shards import locked


@dataclass
class Usage:
    """What was asked so far: calls, tokens read and written, seconds of waiting for answers."""

    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, sequences: Sequence[Sequence[int]], written: int, started: float) -> None:
        """A call for each sequence of tokens read, since `started` by the monotonic clock."""
        self.calls += len(sequences)
        self.prompt_tokens += sum(map(len, sequences))
        self.answer_tokens += written
        self.seconds += time.monotonic() - started


USAGE_FILE = "usage.jsonl"


@dataclass
class Spent(Usage):
    """Usage with its price: in the currency of the prices that were given, 0 where none were."""

    cost: float = 0.0

    def since(self, before: Spent) -> Spent:
        """What was spent after `before`."""
        told = asdict(before).items()
        return Spent(**{name: getattr(self, name) - value for name, value in told})


def record_usage(folder: Path, spent: Spent) -> None:
    """Add a line to a teacher's folder; nothing if there was nothing to do."""
    if not spent.calls:
        return
    told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(spent)}
    with locked(folder), open(folder / USAGE_FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def read_usage(folder: Path) -> Spent | None:
    """The sum of a teacher's lines; None if none were written (an import, an older version).

    Raises:
        InputError: a line is not ours.

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
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            told = json.loads(line)
            for field in fields(Spent):
                setattr(total, field.name, getattr(total, field.name) + told[field.name])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"not a line of usage: {error!r}", file=path, line=number, remedy="delete the line"
            ) from error
    return total


@dataclass
class ScoreReport:
    """How many pairs were wanted, and of these: known before, scored now, missing, stale.

    Of a pairwise or listwise teacher all counts are of its questions.

    Args:
        reused: in the store before.
        scored: answered now.
        stale: of `scored`, asked before about other texts under the same IDs.
        missing: the call failed; they are not in the store, and asked the next time.
        noun: what was counted.
        unfinished: queries (not questions) of which no more was asked because a call had failed.
        repaired: of `scored`, orders with doubles, strangers or gaps; what is wrong is left out.
        unparsable: of `scored`, answers without an order; they rank nothing.
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
