"""Finds the documents worth scoring: for each centroid, those that have a token near it.

A query token looks up the documents of its `nprobe` nearest centroids. A document's approximate
score is the sum over the query's tokens of the similarity to the best centroid that led to it; a
token that did not lead to it counts as the next centroid would (as in XTR,
https://arxiv.org/abs/2304.01982). Only the lists looked up are read, however large the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from retrieval_kd.files import atomic_path, new_array
from retrieval_kd.models.encode import save_array

LISTS, STARTS = "lists.npy", "list_starts.npy"
FILES = (LISTS, STARTS)

Parts = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Reads, from the first on, each shard's centroids of tokens and tokens of documents."""


def write(out: Path, parts: Parts, centroids: int) -> None:
    """Write each centroid's documents, rising; two readings, with one shard in memory at a time."""
    counts = np.zeros(centroids, dtype=np.int64)
    for pairs in _pairs(parts):
        counts += np.bincount(pairs[:, 0], minlength=centroids)
    starts = np.concatenate([[0], np.cumsum(counts)])
    with atomic_path(out / LISTS) as temporary:
        lists = new_array(temporary, (int(starts[-1]),), np.uint32)
        free = starts[:-1].copy()
        for pairs in _pairs(parts):
            counts = np.bincount(pairs[:, 0], minlength=centroids)
            before = np.cumsum(counts) - counts
            places = free[pairs[:, 0]] + np.arange(len(pairs)) - before[pairs[:, 0]]
            lists[places] = pairs[:, 1]
            free += counts
        lists.flush()
        del lists
    save_array(out / STARTS, starts)


def _pairs(parts: Parts) -> Iterable[np.ndarray]:
    """The distinct pairs of centroid and document of each shard, in order."""
    first = 0
    for cells, lengths in parts():
        documents = np.repeat(np.arange(first, first + len(lengths)), lengths)
        yield np.unique(np.stack([cells.astype(np.int64), documents], axis=1), axis=0)
        first += len(lengths)


class Candidates:
    """The lists, mapped from disk."""

    def __init__(self, folder: Path, documents: int) -> None:
        self.lists = np.load(folder / LISTS, mmap_mode="r", allow_pickle=False)
        self.starts = np.load(folder / STARTS, allow_pickle=False)
        self.documents = documents

    def best(
        self, similar: np.ndarray, nprobe: int, count: int, live: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the positions of the `count` best documents by approximate score, rising.

        There are fewer if the lists looked up have fewer.

        Args:
            similar: of the query's tokens to the centroids `(query tokens, K)`.
            live: which documents may be found `(documents,)` bool; by default all.
        """
        scores = np.zeros(self.documents, dtype=np.float32)
        place = np.empty(self.documents, dtype=np.int64)
        for row in similar:
            nearest, missing = _nearest(row, nprobe)
            lists = [self.lists[self.starts[cell] : self.starts[cell + 1]] for cell in nearest]
            found = np.concatenate(lists)
            gains = np.repeat(row[nearest] - missing, [len(each) for each in lists])
            order = np.arange(len(found))
            place[found] = order  # of a document found twice, the last and best place stays
            last = place[found] == order
            scores[found[last]] += gains[last]
        reached = np.flatnonzero(scores if live is None else scores * live)
        if len(reached) > count:
            top = np.argpartition(-scores[reached], count - 1)[:count]
            reached = np.sort(reached[top])
        return reached


def _nearest(row: np.ndarray, nprobe: int) -> tuple[np.ndarray, float]:
    """Return the centroids most similar to a query token, the best one last, and the next value."""
    if nprobe >= len(row):
        return np.argsort(row), float(row.min()) - 1e-6
    top = np.argpartition(-row, nprobe)[: nprobe + 1]
    top = top[np.argsort(row[top])]
    return top[1:], float(row[top[0]]) - 1e-6  # so that being found is worth something
