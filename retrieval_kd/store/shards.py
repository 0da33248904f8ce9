"""A shard: one Parquet file of a teacher's folder, written whole or not at all, read by checksum.

A shard's name is `shard-NUMBER-CHECKSUM.parquet`. Beside the shards lies `teacher.json`
(`key.py`). `scores.py` and `answers.py` say what the rows mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_kd import files
from retrieval_kd.errors import InputError

try:
    import fcntl
except ImportError:  # no POSIX locks: two writers may share a number, never a name or a row
    fcntl = None  # type: ignore[assignment]

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("document_id", pa.string()),
        ("query_digest", pa.binary(16)),
        ("document_digest", pa.binary(16)),
        ("score", pa.float32()),
    ]
)
TEACHER_FILE = "teacher.json"
SHARDS = "shards"  # key of teacher.json: how many were written
MAY_LACK = ("logs", "log_odds", "order")  # columns of answers
OWNER = b"teacher"  # key of a shard's metadata: the fingerprint of its teacher
SHARD_NAME = re.compile(r"shard-(\d{6,})-([0-9a-f]{32})\.parquet")
DAMAGED = "delete the file; the command that wrote it makes its contents again"


def write_shard(folder: Path, about: dict[str, Any], table: pa.Table) -> Path:
    """Write one shard, whole or not at all, which says whose it is.

    teacher.json is `about`, as first written, and the number of shards. Rows that the last shard
    already has are not written again: a signal may come between a shard and the writer's note.
    """
    sink = pa.BufferOutputStream()
    whose = {**(table.schema.metadata or {}), OWNER: about["fingerprint"].encode()}
    table = table.replace_schema_metadata(whose)
    pq.write_table(table, sink, compression="zstd")
    data = memoryview(sink.getvalue())
    with locked(folder):
        last = next(reversed(shard_paths(folder)), None)
        number = shard_number(last.name) + 1 if last else 1
        path = folder / f"shard-{number:06d}-{checksum(data)}.parquet"
        if last is not None and last.name.split("-")[2] == path.name.split("-")[2]:
            path = last
        else:
            with files.atomic_path(path) as temporary:
                temporary.write_bytes(data)
        _describe(folder, about)
    return path


class ShardWriter:
    """A context manager: rows wait in memory and go to disk a shard at a time.

    Entering it removes what killed writers left, and writes teacher.json again if it is missing or
    damaged and there are shards. Leaving it, even by an exception, writes the waiting rows.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self._folder, self._about = folder, about

    def __enter__(self) -> Self:
        if self._folder.is_dir():
            with locked(self._folder):
                files.sweep(self._folder)
        try:
            files.read_sealed(self._folder / TEACHER_FILE)
        except (OSError, files.DamagedFile):
            if shard_paths(self._folder):
                with locked(self._folder):
                    _describe(self._folder, self._about)
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()

    def flush(self) -> None:
        """Write all waiting rows."""
        raise NotImplementedError


def _describe(folder: Path, about: dict[str, Any]) -> None:
    kept: dict[str, Any] = {}
    with contextlib.suppress(OSError, files.DamagedFile):  # missing or damaged: written again
        kept = files.read_sealed(folder / TEACHER_FILE)
    last, noted = shard_number(shard_paths(folder)[-1].name), kept.get(SHARDS, 0)
    described = {**(kept or about), SHARDS: max(last, noted if type(noted) is int else 0)}
    files.write_json(folder / TEACHER_FILE, files.sealed(described))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a teacher's folder against other writers; the lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as handle:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def read_shard(
    path: Path, columns: list[str] | None = None, schema: pa.Schema = SCHEMA
) -> pa.Table:
    """Read a shard's table after checking its bytes against the checksum in its name.

    Raises:
        InputError: the file changed after it was written, is not Parquet of this schema, or is
            another teacher's.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the shard: {error.strerror}", file=path) from error
    if checksum(data) != path.name.split("-")[2].split(".")[0]:
        raise InputError("the shard changed after it was written", file=path, remedy=DAMAGED)
    try:
        table = pq.read_table(pa.BufferReader(data), columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not a Parquet file: {error}", file=path, remedy=DAMAGED) from error
    owner = (table.schema.metadata or {}).get(OWNER, b"").decode()
    if owner not in ("", path.parent.name):  # earlier versions did not note it
        remedy = f"move it to {path.parent.with_name(owner)}, or delete it"
        problem = f"this shard is of teacher {owner}, not of {path.parent.name}"
        raise InputError(problem, file=path, remedy=remedy)
    expected = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    if not table.schema.equals(expected, check_metadata=False):
        raise InputError(
            f"columns {table.schema.names} are not those of a shard", file=path, remedy=DAMAGED
        )
    for name in table.column_names:
        if name not in MAY_LACK and table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise InputError(f"{name} is empty in row {row}", file=path, remedy=DAMAGED)
    return table


def texts_unknown(path: Path) -> bool:
    """Whether the shard's digests are of IDs because it was imported without a collection."""
    try:
        about = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not a Parquet file: {error}", file=path, remedy=DAMAGED) from error
    return about.get(b"texts") == b"unknown"


def shard_paths(folder: Path) -> list[Path]:
    """Complete shards of a teacher's folder, in the order they were written."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if SHARD_NAME.fullmatch(entry.name)]
    return [folder / name for name in sorted(names, key=lambda name: (shard_number(name), name))]


def shard_number(name: str) -> int:
    """The shard's place in the order of writing, from 1.

    Example:
        >>> shard_number("shard-000012-" + 32 * "0" + ".parquet")
        12
    """
    return int(name.split("-")[1])


def checksum(data: bytes | memoryview) -> str:
    """BLAKE2 checksum of a shard's bytes: the 32 hex digits at the end of its name."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
