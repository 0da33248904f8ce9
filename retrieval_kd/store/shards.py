"""The score store's files: how a shard is named, written whole, and read with its checksum.

What a row means and who may look at it is in `store.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
SHARD_NAME = re.compile(r"shard-(\d{6,})-([0-9a-f]{32})\.parquet")


def shard_paths(folder: Path) -> list[Path]:
    """The complete shards of a teacher's folder, in the order they were written."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if SHARD_NAME.fullmatch(entry.name)]
    return [folder / name for name in sorted(names, key=lambda name: (shard_number(name), name))]


def shard_number(name: str) -> int:
    """Its place in the order of writing.

    Example:
        >>> shard_number("shard-000012-" + 32 * "0" + ".parquet")
        12
    """
    return int(name.split("-")[1])


def checksum(data: bytes | memoryview) -> str:
    """32 hex digits of a shard's bytes: the last part of its name."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the teacher's folder against other writers; a killed holder lets go by dying."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as handle:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_shard(folder: Path, about: dict[str, Any], table: pa.Table) -> Path:
    """Add one shard, whole or not at all; `about` becomes teacher.json if there is none yet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = memoryview(sink.getvalue())
    with locked(folder):
        if not (folder / TEACHER_FILE).exists():
            files.write_json(folder / TEACHER_FILE, about)
        number = max((shard_number(path.name) for path in shard_paths(folder)), default=0) + 1
        path = folder / f"shard-{number:06d}-{checksum(data)}.parquet"
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(data)
    return path


def read_shard(
    path: Path, columns: list[str] | None = None, schema: pa.Schema = SCHEMA
) -> pa.Table:
    """A shard's table, its bytes checked against its name.

    Raises:
        InputError: a byte changed since it was written, or it is no Parquet file of this schema.
    """
    remedy = "delete the file; what it held is asked again by the next `rkd score`"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the shard: {error.strerror}", file=path) from error
    if checksum(data) != path.name.split("-")[2].split(".")[0]:
        raise InputError("the shard changed after it was written", file=path, remedy=remedy)
    try:
        table = pq.read_table(pa.BufferReader(data), columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not a Parquet file: {error}", file=path, remedy=remedy) from error
    expected = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    if not table.schema.equals(expected, check_metadata=False):
        raise InputError(
            f"columns {table.schema.names} are not those of a shard", file=path, remedy=remedy
        )
    return table


def texts_unknown(path: Path) -> bool:
    """Whether the shard's digests are of IDs, because it was imported without a collection."""
    return (pq.read_schema(path).metadata or {}).get(b"texts") == b"unknown"


def query_digest(text: str) -> str:
    """The 32 hex digits under which answers about a query are kept."""
    return files.digest_text(text)


def document_digest(title: str, text: str) -> str:
    """The 32 hex digits under which answers about a document are kept."""
    return files.digest_text(title, text)


def id_digest(id: str) -> str:
    """Stands in for the digest of a text that was not there when scores were imported."""
    return files.digest_text("id", id)


def digests_to_words(digests: Sequence[str]) -> np.ndarray:
    """Hex digests of 128 bits as an (n, 2) array of 64-bit words.

    Example:
        >>> digests_to_words(["0" * 31 + "1", "f" * 32]).tolist()
        [[0, 72057594037927936], [18446744073709551615, 18446744073709551615]]
    """
    if len(digests) and set(map(len, digests)) != {32}:
        bad = next(digest for digest in digests if len(digest) != 32)
        raise InputError("a text digest has 32 hex digits", id=bad)
    try:
        data = bytes.fromhex("".join(digests))
    except ValueError as error:
        raise InputError(f"a text digest has 32 hex digits: {error}") from error
    if len(data) != 16 * len(digests):
        raise InputError("a text digest has 32 hex digits and no spaces")
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)


def words_to_column(words: np.ndarray) -> pa.Array:
    """(n, 2) words as a column of 16-byte digests."""
    data = pa.py_buffer(np.ascontiguousarray(words).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(words), [None, data])


def column_to_words(column: pa.ChunkedArray) -> np.ndarray:
    """A column of 16-byte digests as (n, 2) words."""
    parts = [np.empty((0, 2), dtype="<u8")]
    for chunk in column.chunks:
        words = np.frombuffer(chunk.buffers()[1], dtype="<u8").reshape(-1, 2)
        parts.append(words[chunk.offset : chunk.offset + len(chunk)])
    return np.concatenate(parts)


def hash_ids(query_ids: Sequence[str], document_ids: Sequence[str]) -> np.ndarray:
    """64-bit hashes (n,) of pairs of IDs: only to count, a collision counts one pair too many."""
    pairs = zip(query_ids, document_ids, strict=True)
    digests = b"".join(
        hashlib.blake2b(f"{query}\x1f{document}".encode(), digest_size=8).digest()
        for query, document in pairs
    )
    return np.frombuffer(digests, dtype=np.uint64)
