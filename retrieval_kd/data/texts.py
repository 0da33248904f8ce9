"""ID → (title, text) for millions of documents or queries, on disk and memory-mapped.

A folder holds `texts.arrow` (Arrow IPC: id, title, text), `hashes.npy` (64-bit hashes of the IDs,
sorted), `positions.npy` (whose hash each is) and `texts.json`. In memory: nothing but the pages in
use. How the files are made is in `build_texts.py`; where the rows come from, in the readers.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json


class Document(NamedTuple):
    """A document, or a query (whose title is empty).

    Example:
        >>> Document("d1", "Tides", "The moon pulls the sea.").full
        'Tides The moon pulls the sea.'
    """

    id: str
    title: str
    text: str

    @property
    def full(self) -> str:
        """Title and text as one string: what models read."""
        return f"{self.title} {self.text}".strip()


class UnknownID(InputError, KeyError):
    """An ID that the texts do not hold; an `InputError`, and a `KeyError` for `dict` habits."""

    __str__ = Exception.__str__


def hash_id(id: str) -> int:
    """The 64-bit hash under which an ID is found."""
    data = id.encode("utf-8", errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Texts:
    """Documents by ID or by position, in the order of their source.

    Example:
        >>> import tempfile
        >>> from retrieval_kd.data.build_texts import build_texts
        >>> from retrieval_kd.data.rows import Row
        >>> rows = [Row("d1", "Tides", "The moon."), Row("d2", "", "The sun.")]
        >>> texts = build_texts(rows, tempfile.mkdtemp())
        >>> len(texts), texts.position("d2"), texts.id_at(0), "d3" in texts
        (2, 1, 'd1', False)
        >>> texts["d1"]
        Document(id='d1', title='Tides', text='The moon.')
        >>> [document.id for document in texts.iterate(start=1)]
        ['d2']
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        arrow = self.folder / "texts.arrow"
        try:
            before = self.folder.stat().st_ino
            facts = read_json(self.folder / "texts.json")
            self._hashes = np.asarray(np.load(self.folder / "hashes.npy", mmap_mode="r"))
            self._positions = np.asarray(np.load(self.folder / "positions.npy", mmap_mode="r"))
            self._reader = pa.ipc.open_file(pa.memory_map(str(arrow)))
            whole = arrow.stat().st_size == facts["bytes"]
            whole = whole and self.folder.stat().st_ino == before  # not replaced while opening
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise _damaged(self.folder) from error
        self._count: int = facts["count"]
        if not whole or len(self._hashes) != self._count or len(self._positions) != self._count:
            raise _damaged(self.folder)
        self.noun: str = facts["noun"]
        self.digest: str = facts["digest"]
        self.characters: int = facts["characters"]
        self._starts: list[int] = facts["starts"]  # position of each batch's first row
        self._batches: dict[int, pa.RecordBatch] = {}  # views into the map, no copies

    def __len__(self) -> int:
        return self._count

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._find(id) >= 0

    def __getitem__(self, id: str) -> Document:
        return self.at(self.position(id))

    def __reduce__(self) -> tuple[type[Texts], tuple[Path]]:
        return Texts, (self.folder,)  # worker processes map the same files

    def position(self, id: str) -> int:
        """Where `id` stands, counted from 0; `UnknownID` if it is not here."""
        position = self._find(id)
        if position < 0:
            remedy = f"check that the {self.noun} IDs belong to this collection"
            raise UnknownID(f"unknown {self.noun} ID", id=str(id), remedy=remedy)
        return position

    def id_at(self, position: int) -> str:
        batch, row = self._locate(position)
        return batch.column(0)[row].as_py()

    def at(self, position: int) -> Document:
        batch, row = self._locate(position)
        return Document(*(column[row].as_py() for column in batch.columns))

    def ids(self) -> Iterator[str]:
        for number in range(len(self._starts)):
            yield from self._batch(number).column(0).to_pylist()

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[Document]:
        """Documents at positions `start` up to but without `stop`, a batch in memory at a time."""
        stop = self._count if stop is None else min(stop, self._count)
        while start < stop:
            number = bisect_right(self._starts, start) - 1
            first = self._starts[number]
            batch = self._batch(number).slice(start - first, stop - start)
            yield from map(Document, *(column.to_pylist() for column in batch.columns))
            start += batch.num_rows

    def _find(self, id: str) -> int:
        """The position of `id`, or -1. Equal hashes are told apart by the IDs themselves."""
        wanted = np.uint64(hash_id(id))
        place = int(np.searchsorted(self._hashes, wanted))
        while place < self._count and self._hashes[place] == wanted:
            position = int(self._positions[place])
            if self.id_at(position) == id:
                return position
            place += 1
        return -1

    def _locate(self, position: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= position < self._count:
            raise IndexError(f"position {position} of {self._count} {self.noun} texts")
        number = bisect_right(self._starts, position) - 1
        return self._batch(number), int(position) - self._starts[number]

    def _batch(self, number: int) -> pa.RecordBatch:
        batch = self._batches.get(number)
        if batch is None:
            batch = self._batches[number] = self._reader.get_batch(number)
        return batch


def _damaged(folder: Path) -> InputError:
    problem = "not a complete folder of texts"
    return InputError(problem, file=folder, remedy="delete the folder; it is built again")
