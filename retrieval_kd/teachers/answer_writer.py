"""Adding answers to the store: at once to a journal, then by the thousand to a shard.

A call may cost money, so an answer is on disk as soon as it is given. Shards of a few answers each
would be many files; a journal is one, and is gone when its answers are in a shard. What a killed
writer left in its journal is taken into a shard by the next one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.answer_files import Row, from_line, to_line, to_table
from retrieval_kd.teachers.store_files import locked, write_shard
from retrieval_kd.teachers.store_key import TeacherKey

try:
    import fcntl
except ImportError:  # no POSIX locks: do not run two writers on one store
    fcntl = None  # type: ignore[assignment]

JOURNALS = ".journal-*.jsonl"


class AnswerWriter:
    """A context manager; leaving it, by an exception too, writes what was added into a shard."""

    def __init__(self, folder: Path, key: TeacherKey, shard_rows: int = 5_000) -> None:
        self._folder, self._about, self._rows = folder, key.about(), shard_rows
        self.waiting: list[Row] = []  # in the journal, not yet in a shard
        self._journal: IO[bytes] | None = None

    def __enter__(self) -> AnswerWriter:
        with locked(self._folder):
            left = _left_behind(self._folder)
            name = f".journal-{secrets.token_hex(8)}.jsonl"
            self._journal = open(self._folder / name, "xb")
            _lock(self._journal)
        for path, handle in left:
            rows = read_journal(path, handle.read())
            if rows:
                write_shard(self._folder, self._about, to_table(rows))
            path.unlink()
            handle.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()
        assert self._journal is not None
        Path(self._journal.name).unlink(missing_ok=True)
        self._journal.close()

    def add(self, rows: Sequence[Row]) -> None:
        """Take answers; when this returns they outlive the process, and a crash of the machine."""
        assert self._journal is not None
        self._journal.write("".join(map(to_line, rows)).encode())
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self.waiting += rows
        if len(self.waiting) >= self._rows:
            self.flush()

    def flush(self) -> None:
        """Put what is waiting into a shard, and empty the journal."""
        assert self._journal is not None
        if self.waiting:
            write_shard(self._folder, self._about, to_table(self.waiting))
            self._journal.seek(0)
            self._journal.truncate()
            self.waiting = []


def read_journal(path: Path, data: bytes) -> list[Row]:
    """The rows of a journal; its last line may be torn, and then was never promised.

    Raises:
        InputError: another line is no row.
    """
    lines = data.decode("utf-8", errors="replace").split("\n")[:-1]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(from_line(line))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"not an answer: {error!r}",
                file=path,
                line=number,
                remedy="delete the file; its questions are asked again",
            ) from error
    return rows


def _left_behind(folder: Path) -> list[tuple[Path, IO[bytes]]]:
    """Journals whose writers are gone, opened and locked."""
    left = []
    for path in sorted(folder.glob(JOURNALS)):
        handle = open(path, "rb")
        if _lock(handle):
            left.append((path, handle))
        else:
            handle.close()
    return left


def _lock(handle: IO[bytes]) -> bool:
    """Whether this process now holds the file; a killed holder lets go by dying."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
