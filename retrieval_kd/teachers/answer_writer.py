"""Adding answers about pairs and lists to the store, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from retrieval_kd.teachers.answer_files import Row, to_table
from retrieval_kd.teachers.store_files import write_shard
from retrieval_kd.teachers.store_key import TeacherKey


class AnswerWriter:
    """Writes a shard of what was added when there is enough, or when it has waited long enough.

    A context manager: leaving it, by an exception too, writes the rest.

    Args:
        shard_rows: enough.
        most_seconds: long enough; a killed process loses no more work than that.
    """

    def __init__(
        self, folder: Path, key: TeacherKey, shard_rows: int = 5_000, most_seconds: float = 30
    ) -> None:
        self._folder, self._about = folder, key.about()
        self._rows, self._seconds = shard_rows, most_seconds
        self._since = time.monotonic()
        self.waiting: list[Row] = []  # not in a shard yet

    def __enter__(self) -> AnswerWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def add(self, rows: Sequence[Row]) -> None:
        """Take answers, and lists of candidates that strategies were given."""
        self.waiting += rows
        waited = time.monotonic() - self._since
        if len(self.waiting) >= self._rows or waited >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self.waiting:
            write_shard(self._folder, self._about, to_table(self.waiting))
        self.waiting, self._since = [], time.monotonic()
