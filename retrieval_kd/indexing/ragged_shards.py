"""Documents with varying numbers of rows each, encoded in shards that survive a kill.

A shard is a plain `.npz` file without pickles: `lengths` has the rows per document, and the other
arrays hold the rows of all its documents one after the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.data.texts import Texts
from retrieval_kd.files import digest_json
from retrieval_kd.models.encode import is_readable, read_arrays, save_arrays
from retrieval_kd.progress import bar

SHARD = 1_024  # documents
LENGTHS = "lengths"

Shard = dict[str, np.ndarray]


def encode_shards(
    encode: Callable[[list[str]], Shard], texts: Texts, out: Path, inputs: Any
) -> list[Path]:
    """Encode all documents into shards in a hidden folder of `out`. Returns the shards' paths.

    Shards of an earlier, killed call with the same `inputs` are kept; all others are removed.
    """
    folder = out / f".shards-{digest_json([inputs, SHARD])}"
    for other in out.glob(".shards-*"):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(exist_ok=True)
    for stale in folder.glob(".*.part"):
        stale.unlink()
    paths = []
    with bar("encoding documents", len(texts)) as progress:
        for number, start in enumerate(range(0, len(texts), SHARD)):
            stop = min(start + SHARD, len(texts))
            path = folder / f"{number:06d}.npz"
            if not is_readable(path, LENGTHS):
                documents = [document.full for document in texts.iterate(start, stop)]
                save_arrays(path, **encode(documents))
            paths.append(path)
            progress.advance(stop - start)
    return paths


def read_shards(paths: Sequence[Path]) -> Iterator[Shard]:
    """Yield the shards in order, one in memory at a time."""
    yield from map(read_arrays, paths)


def lengths_of(paths: Sequence[Path]) -> np.ndarray:
    """Rows per document `(n,)` of all shards."""
    return np.concatenate([read_arrays(path)[LENGTHS] for path in paths]).astype(np.int64)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Where each document's rows begin, then where the last document's end: `(n + 1,)`.

    Example:
        >>> offsets_of(np.array([2, 3])).tolist()
        [0, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
