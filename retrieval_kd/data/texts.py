"""ID → (title, text) for millions of documents or queries, on disk and memory-mapped.

A folder holds `texts.arrow` (Arrow IPC: id, title, text), `hashes.npy` (sorted 64-bit hashes of the
IDs), `positions.npy` (the row of each hash), `texts.json` and a seal. Reading keeps only the pages
in use in memory; building keeps one batch and 12 bytes per row.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from retrieval_kd.data.rows import Row, check_id
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_folder, damage, read_json, seal, write_json

SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
BATCH_ROWS, BATCH_CHARACTERS = 4_096, 4_000_000
BULK = 100_000  # IDs that are looked up at once


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
        """Title and text as one string, which is what models read."""
        return f"{self.title} {self.text}".strip()


class UnknownID(InputError, KeyError):
    """An ID that is not among the texts; also a `KeyError`, as from a `dict`."""

    __str__ = Exception.__str__


def hash_id(id: str) -> int:
    """The 64-bit hash by which an ID is looked up."""
    data = id.encode("utf-8", errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Texts:
    """Documents by ID or by position, in the order of their source.

    Example:
        >>> import tempfile
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
        try:
            before = self.folder.stat().st_ino
            problem = damage(self.folder)
            if problem:  # a damaged Arrow file can end the process
                raise _damaged(self.folder, problem)
            facts = read_json(self.folder / "texts.json")
            self._hashes = np.asarray(np.load(self.folder / "hashes.npy", mmap_mode="r"))
            self._positions = np.asarray(np.load(self.folder / "positions.npy", mmap_mode="r"))
            self._reader = pa.ipc.open_file(pa.memory_map(str(self.folder / "texts.arrow")))
            if self.folder.stat().st_ino != before:
                raise _damaged(self.folder, "it was replaced while it was opened")
        except (OSError, EOFError) as error:
            raise _damaged(self.folder, str(error)) from error
        self._count: int = facts["count"]
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

    def __reduce__(self) -> tuple[type[Texts], tuple[object, ...]]:
        return Texts, (self.folder,)  # worker processes map the same files

    def position(self, id: str) -> int:
        """The position of `id`, from 0. Raises `UnknownID` if it is missing."""
        position = self._find(id)
        if position < 0:
            remedy = f"check that the {self.noun} IDs belong to this collection"
            raise UnknownID(f"unknown {self.noun} ID", id=str(id), remedy=remedy)
        return position

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """The positions (n,) of IDs, −1 for one that is missing."""
        found = np.empty(len(ids), np.int64)
        for start in range(0, len(ids), BULK):
            some = ids[start : start + BULK]
            keys = np.fromiter(map(hash_id, some), np.uint64, len(some))
            place = np.minimum(np.searchsorted(self._hashes, keys), self._count - 1)
            at = self._positions[place].astype(np.int64)
            same = self._hashes[place] == keys
            for row, (id, hashes_agree) in enumerate(zip(some, same.tolist(), strict=True)):
                if not hashes_agree:
                    at[row] = -1
                elif self.id_at(int(at[row])) != id:  # another ID has the same hash
                    at[row] = self._find(id)
            found[start : start + BULK] = at
        return found

    def ids_at(self, positions: np.ndarray) -> list[str]:
        """The IDs (n,) at positions (n,)."""
        return [self.id_at(position) for position in positions.tolist()]

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
        """Yield the documents from `start` up to but without `stop`, batch by batch."""
        stop = self._count if stop is None else min(stop, self._count)
        while start < stop:
            number = bisect_right(self._starts, start) - 1
            first = self._starts[number]
            batch = self._batch(number).slice(start - first, stop - start)
            yield from map(Document, *(column.to_pylist() for column in batch.columns))
            start += batch.num_rows

    def _find(self, id: str) -> int:
        """The position of `id`, or -1. IDs with equal hashes are compared."""
        key = np.uint64(hash_id(id))
        place = int(np.searchsorted(self._hashes, key))
        while place < self._count and self._hashes[place] == key:
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


def _damaged(folder: Path, reason: str) -> InputError:
    problem = f"not a complete folder of texts: {reason}"
    return InputError(problem, file=folder, remedy="delete the folder; it is built again")


def build_texts(rows: Iterable[Row], folder: str | Path, *, noun: str = "document") -> Texts:
    """Write `rows` to `folder`, all or nothing; a repeated ID is an error that names both lines.

    Example:
        >>> import tempfile
        >>> rows = [Row("d1", "", "x", "corpus.jsonl", 1), Row("d1", "", "y", "corpus.jsonl", 2)]
        >>> build_texts(rows, tempfile.mkdtemp())
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: corpus.jsonl:2: duplicate document ID, first at \
corpus.jsonl:1 (id d1). To fix: keep one of the two, or give one of them a different ID.
    """
    with atomic_folder(folder) as temporary:
        places = _write_arrow(rows, temporary, noun)
        hashes = np.frombuffer(places.hashes, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        np.save(temporary / "hashes.npy", hashes[order])
        np.save(temporary / "positions.npy", order.astype(np.uint64))
        seal(temporary)
        texts = Texts(temporary)
        _refuse_duplicates(texts, hashes, order, places)
    texts.folder = Path(folder)  # the mapped files stay open, whoever replaces the folder
    return texts


class _Places:
    """The ID hash (8 bytes) and line number (4 bytes) of every row streamed so far."""

    def __init__(self) -> None:
        self.hashes, self.lines = array("Q"), array("I")
        self.files: list[tuple[int, str]] = []  # (position of the file's first row, file)

    def add(self, row: Row) -> None:
        if not self.files or self.files[-1][1] != row.file:
            self.files.append((len(self.hashes), row.file))
        self.hashes.append(hash_id(row.id))
        self.lines.append(row.line)

    def place(self, position: int) -> tuple[str, int]:
        file = next(file for start, file in reversed(self.files) if start <= position)
        return file, self.lines[position]


def _write_arrow(rows: Iterable[Row], folder: Path, noun: str) -> _Places:
    places, digest, starts, all_characters = _Places(), hashlib.blake2b(digest_size=16), [], 0
    columns: tuple[list[str], list[str], list[str]] = ([], [], [])
    characters = 0
    with (
        pa.OSFile(str(folder / "texts.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, SCHEMA) as writer,
    ):

        def flush() -> None:
            starts.append(len(places.hashes) - len(columns[0]))
            writer.write_batch(pa.record_batch(list(columns), schema=SCHEMA))
            for column in columns:
                column.clear()

        for row in rows:
            check_id(row.id, noun, row.file or None, row.line or None)
            _update(digest, row, noun)
            places.add(row)
            for column, value in zip(columns, row[:3], strict=True):
                column.append(value)
            characters += len(row.title) + len(row.text)
            if len(columns[0]) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
                flush()
                all_characters, characters = all_characters + characters, 0
        if columns[0]:
            flush()
            all_characters += characters
    if not starts:
        raise InputError(f"no {noun} at all", remedy=f"give at least one {noun}")
    facts = {
        "noun": noun,
        "count": len(places.hashes),
        "digest": digest.hexdigest(),
        "characters": all_characters,
        "starts": starts,
    }
    write_json(folder / "texts.json", facts)
    return places


def _update(digest: hashlib.blake2b, row: Row, noun: str) -> None:
    try:
        for part in row[:3]:
            data = part.encode("utf-8")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    except UnicodeEncodeError as error:
        problem = f"{noun} with half a character (lone surrogate U+{ord(part[error.start]):04X})"
        remedy = "write the character whole, or leave it out"
        raise InputError(
            problem,
            file=row.file or None,
            line=row.line or None,
            id=ascii(row.id),
            remedy=remedy,
        ) from None


def _refuse_duplicates(
    texts: Texts, hashes: np.ndarray, order: np.ndarray, places: _Places
) -> None:
    """Compare the IDs of equal hashes, which are rare unless IDs repeat."""
    ordered = hashes[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    seen: dict[str, int] = {}
    for position in np.sort(np.unique(np.concatenate([order[same], order[same + 1]]))):
        id = texts.id_at(int(position))
        if id in seen:
            (first_file, first_line), (file, line) = places.place(seen[id]), places.place(position)
            raise InputError(
                f"duplicate {texts.noun} ID, first at {first_file}:{first_line}",
                file=file or None,
                line=line or None,
                id=id,
                remedy="keep one of the two, or give one of them a different ID",
            )
        seen[id] = int(position)
