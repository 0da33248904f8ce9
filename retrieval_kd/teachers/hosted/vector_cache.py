"""Vectors of a server's model, each on disk as soon as it has come, by the digest of its text.

A folder has one file of records of equal length: digest, vector, checksum. Records are only added,
so a kill leaves at most one that is incomplete; it is cut off when the next one is added. A record
whose checksum is wrong counts as missing.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text, named_writes, sweep, write_json

ABOUT = "about.json"


class VectorCache:
    """The vectors of one model, by text.

    Args:
        about: what the vectors are of, written beside them for people.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> VectorCache(folder, {}).add(["a", "b"], np.array([[1, 0], [0, 1]]))
        >>> VectorCache(folder, {}).find(["b", "c"])
        {'b': array([0., 1.], dtype=float32)}
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self._rows: dict[bytes, int] = {}
        self._width, self._read = 0, 0  # numbers of a vector; records in `_rows`
        if folder.is_dir():
            self._catch_up()

    def find(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors (D,) of those texts that have one."""
        digests = {text: _digest(text) for text in texts}
        rows = {text: self._rows[d] for text, d in digests.items() if d in self._rows}
        if not rows:
            return {}
        records = np.memmap(self._file, dtype=_record(self._width), mode="r", shape=(self._read,))
        found = {}
        for text, row in rows.items():
            record = records[row]
            if record["text"].tobytes() == digests[text] and record["sum"] == _sum(record):
                found[text] = np.array(record["vector"])
        return found

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Store `vectors (n, D)` of n texts; after this call they survive the process.

        Raises:
            InputError: they have another length than those that are stored.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            self._catch_up()
            if not self._width:
                sweep(self.folder)
                self._width = vectors.shape[1]
                write_json(self.folder / ABOUT, {**self.about, "width": self._width})
            if vectors.shape[1] != self._width:
                raise InputError(
                    f"the server now gives vectors of {vectors.shape[1]} numbers, and gave "
                    f"{self._width} under this model's name before",
                    file=self.folder,
                    remedy="name the model that is there with ?revision=NAME, or delete the folder",
                )
            records = np.zeros(len(texts), dtype=_record(self._width))
            records["text"] = [np.frombuffer(_digest(text), np.uint8) for text in texts]
            records["vector"] = vectors
            records["sum"] = [_sum(record) for record in records]
            with named_writes(self._file), open(self._file, "ab") as file:
                file.truncate(self._read * records.itemsize)
                file.write(records.tobytes())
            self._catch_up()

    @property
    def _file(self) -> Path:
        return self.folder / f"{self._width}.vectors"

    def _catch_up(self) -> None:
        """Note the records that are new on disk."""
        files = sorted(self.folder.glob("*.vectors"))
        if not files:
            return
        self._width = int(files[0].stem)
        dtype = _record(self._width)
        count = files[0].stat().st_size // dtype.itemsize
        if count < self._read:  # cut by someone else
            self._rows, self._read = {}, 0
        if count > self._read:
            records = np.memmap(files[0], dtype=dtype, mode="r", shape=(count,))
            new = records["text"][self._read :]
            self._rows |= {text.tobytes(): self._read + row for row, text in enumerate(new)}
        self._read = count


def _record(width: int) -> np.dtype[np.void]:
    return np.dtype([("text", "u1", 16), ("vector", "<f4", width), ("sum", "<u4")])


def _sum(record: Any) -> int:
    return zlib.crc32(record["vector"].tobytes(), zlib.crc32(record["text"].tobytes()))


def _digest(text: str) -> bytes:
    return bytes.fromhex(digest_text(text))
