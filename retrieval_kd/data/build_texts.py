"""Streams rows into a `Texts` folder: a batch in memory at a time, and 12 bytes a row of index."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval_kd.data.folders import atomic_folder
from retrieval_kd.data.rows import Row, check_id
from retrieval_kd.data.texts import Texts, hash_id
from retrieval_kd.errors import InputError
from retrieval_kd.files import write_json

SCHEMA = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
BATCH_ROWS, BATCH_CHARACTERS = 4_096, 4_000_000


def build_texts(rows: Iterable[Row], folder: str | Path, *, noun: str = "document") -> Texts:
    """Write `rows` to `folder`, all or nothing; a repeated ID is an error that names both lines.

    Example:
        >>> import tempfile
        >>> rows = [Row("d1", "", "x", "corpus.jsonl", 1), Row("d1", "", "y", "corpus.jsonl", 2)]
        >>> build_texts(rows, tempfile.mkdtemp())
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: corpus.jsonl:2: duplicate document ID, first at \
corpus.jsonl:1 (id d1). To fix: keep one of the two, or give one of them another ID.
    """
    with atomic_folder(folder) as temporary:
        found = _write_arrow(rows, temporary, noun)
        hashes = np.frombuffer(found.hashes, dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        np.save(temporary / "hashes.npy", hashes[order])
        np.save(temporary / "positions.npy", order.astype(np.uint64))
        texts = Texts(temporary)
        _refuse_duplicates(texts, hashes, order, found)
    texts.folder = Path(folder)  # the files that are mapped stay these, whoever builds next
    return texts


class _Found:
    """What is remembered of every row while streaming: its hash (8 bytes) and line (4 bytes)."""

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


def _write_arrow(rows: Iterable[Row], folder: Path, noun: str) -> _Found:
    found, digest, starts, all_characters = _Found(), hashlib.blake2b(digest_size=16), [], 0
    columns: tuple[list[str], list[str], list[str]] = ([], [], [])
    characters = 0
    arrow = folder / "texts.arrow"
    with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:

        def flush() -> None:
            starts.append(len(found.hashes) - len(columns[0]))
            writer.write_batch(pa.record_batch(list(columns), schema=SCHEMA))
            for column in columns:
                column.clear()

        for row in rows:
            check_id(row.id, noun, row.file or None, row.line or None)
            _update(digest, row, noun)
            found.add(row)
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
        "count": len(found.hashes),
        "digest": digest.hexdigest(),
        "characters": all_characters,
        "bytes": arrow.stat().st_size,
        "starts": starts,
    }
    write_json(folder / "texts.json", facts)
    return found


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


def _refuse_duplicates(texts: Texts, hashes: np.ndarray, order: np.ndarray, found: _Found) -> None:
    """Equal hashes are rare unless IDs repeat, so only those IDs are compared."""
    arranged = hashes[order]
    same = np.flatnonzero(arranged[1:] == arranged[:-1])
    seen: dict[str, int] = {}
    for position in np.sort(np.unique(np.concatenate([order[same], order[same + 1]]))):
        id = texts.id_at(int(position))
        if id in seen:
            (first_file, first_line), (file, line) = found.place(seen[id]), found.place(position)
            raise InputError(
                f"duplicate {texts.noun} ID, first at {first_file}:{first_line}",
                file=file or None,
                line=line or None,
                id=id,
                remedy="keep one of the two, or give one of them another ID",
            )
        seen[id] = int(position)
