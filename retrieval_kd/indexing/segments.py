"""What a changed index consists of: its base, segments of documents added since, deleted rows.

The base is what was built, or compacted last. Each addition writes a segment: a folder with the
documents' texts and their vectors, as the model gave them. Rows are numbered through base and
segments; a file lists those that were deleted or replaced. No file is ever changed: each change
writes new ones, and then the manifest that names them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_kd.data.texts import Document, Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_path
from retrieval_kd.models.encode import Shard

IDS, MANIFEST = "ids.arrow", "manifest.json"
TEXTS, VECTORS = "documents", "vectors.npz"  # of a segment; a compacted base may have texts too
BATCH = 65_536  # IDs written at a time
OF_CHANGES = re.compile(r"(segment|base)-\d{6}|deleted-\d{6}\.npy")


@dataclass(frozen=True)
class Layout:
    """Where the rows of an index are: `changes` in its manifest.

    Attributes:
        number: of the last change, from 1; 0 if there was none.
        base: the base's folder within the index; "" if it is the index's own.
        rows: of the base.
        segments: name → rows, oldest first.
        deleted: the file with the positions of deleted rows, in rising order; "" if there is none.
        texts: whether the base has texts of its own, which go before those of the collection.
    """

    number: int
    base: str
    rows: int
    segments: dict[str, int]
    deleted: str = ""
    texts: bool = False

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> Layout:
        return cls(**manifest.get("changes", {"number": 0, "base": "", "rows": manifest["count"],
                                              "segments": {}}))  # fmt: skip

    @property
    def total(self) -> int:
        """All rows, the deleted ones too."""
        return self.rows + sum(self.segments.values())

    def next(self, **changes: Any) -> Layout:
        return replace(self, number=self.number + 1, **changes)

    def name(self, kind: str) -> str:
        """The name of what the next change writes."""
        return f"{kind}-{self.number + 1:06d}"

    def split(self, count: int) -> tuple[dict[str, int], dict[str, int]]:
        """Part the segments into those that stay and the last ones, which join `count` new rows.

        Each that joins has no more rows than those after it together. So there are few segments,
        and a document is copied a few times only.

        Example:
            >>> Layout(3, "", 9, {"segment-000001": 4, "segment-000003": 1}).split(2)
            ({'segment-000001': 4}, {'segment-000003': 1})
        """
        stay = dict(self.segments)
        while stay and list(stay.values())[-1] <= count:
            count += stay.popitem()[1]
        return stay, {name: rows for name, rows in self.segments.items() if name not in stay}


class WithoutTexts:
    """Documents of which only the ID is known: of an index that was built from vectors."""

    def __getitem__(self, id: str) -> Document:
        return Document(id, "", "")


class IndexedTexts:
    """Titles and texts of an index's documents: of those that were added, and of its collection."""

    def __init__(
        self, folders: Sequence[Path], collection: Callable[[], Texts | WithoutTexts]
    ) -> None:
        """Look into `folders` of texts first, in this order, then into the collection's."""
        self._folders, self._open = folders, collection

    @cached_property
    def _added(self) -> list[Texts]:
        if not all(folder.exists() for folder in self._folders):
            problem = "this index was changed after it was opened"
            raise InputError(problem, file=self._folders[0].parents[1], remedy="open it again")
        return [Texts(folder) for folder in self._folders]

    @cached_property
    def _collection(self) -> Texts | WithoutTexts:
        return self._open()

    def __getitem__(self, id: str) -> Document:
        return (
            next((texts[id] for texts in self._added if id in texts), None)
            or (self._collection[id])
        )


def text_folders(folder: Path, layout: Layout) -> list[Path]:
    """The folders of texts of added documents, the last ones first."""
    base = [folder / layout.base / TEXTS] if layout.texts else []
    return [*(folder / name / TEXTS for name in reversed(layout.segments)), *base]


def read_ids(folder: Path, layout: Layout) -> pa.ChunkedArray:
    """The IDs of all rows, mapped from disk."""
    chunks = _column(folder / layout.base / IDS)
    for name in layout.segments:
        chunks += _column(folder / name / TEXTS / "texts.arrow")
    return pa.chunked_array(chunks, type=pa.large_string())


def write_ids(ids: Iterator[str], path: Path) -> None:
    """Write the IDs of a base's rows."""
    schema = pa.schema([("document_id", pa.large_string())])
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        with pa.ipc.new_file(sink, schema) as writer:
            while batch := list(islice(ids, BATCH)):
                writer.write_batch(pa.record_batch([batch], schema=schema))


def _column(path: Path) -> list[pa.Array]:
    with pa.memory_map(str(path)) as source:
        column = pa.ipc.open_file(source).read_all().column(0)
    return column.cast(pa.large_string()).chunks


def read_deleted(folder: Path, layout: Layout) -> np.ndarray:
    """The positions of deleted rows, in rising order."""
    if not layout.deleted:
        return np.zeros(0, np.int64)
    deleted: np.ndarray = np.load(folder / layout.deleted, allow_pickle=False)
    return deleted


def positions(ids: pa.ChunkedArray, wanted: Sequence[str], deleted: np.ndarray) -> dict[str, int]:
    """The position of each wanted ID that is in the index."""
    same = pc.is_in(ids, value_set=pa.array(wanted, pa.large_string()))
    found = np.flatnonzero(same.to_numpy())
    found = found[~np.isin(found, deleted)]
    return {str(ids[at].as_py()): int(at) for at in found.tolist()}


def rows_of(shard: Shard, live: np.ndarray) -> Shard:
    """Take the rows that are `live`; of a shard with `lengths`, each has so many of all values.

    Example:
        >>> shard = {"lengths": np.array([2, 1, 2]), "words": np.array([7, 8, 9, 4, 5])}
        >>> taken = rows_of(shard, np.array([True, False, True]))
        >>> {name: array.tolist() for name, array in taken.items()}
        {'lengths': [2, 2], 'words': [7, 8, 4, 5]}
    """
    values = np.repeat(live, shard["lengths"]) if "lengths" in shard else live
    return {name: array[live if name == "lengths" else values] for name, array in shard.items()}


def joined(shards: Sequence[Shard]) -> Shard:
    """Put shards one below the other."""
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}


def remove_unlisted(folder: Path, files: dict[str, Any], names: Sequence[str]) -> None:
    """Remove what no manifest names any more: an earlier base, segments, what was left by a kill.

    Args:
        files: those that the manifest names.
        names: of the files of a base.
    """
    needed = {Path(name).parts[0] for name in files}
    for path in folder.iterdir():
        if path.name not in needed and (path.name in names or OF_CHANGES.fullmatch(path.name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
