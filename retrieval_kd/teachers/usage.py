"""What a teacher's answers have cost: a line per command, beside them in the store.

Lines are only ever added. They hold counts, never a key, an address or a text.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.language_model import Usage
from retrieval_kd.teachers.store_files import locked

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
