"""An index in memory from a pair of texts to its score: sorted arrays of 20 bytes a pair.

Two 128-bit text digests are folded into one 128-bit key. BLAKE2 digests are uniform, so two
different pairs share a key as rarely as two different texts share a digest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval_kd.store.digests import column_to_words

_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)


def pair_keys(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Fold (n, 2) words of query and of document digests into (n, 2) words of pair keys.

    `key = query · odd + rotate(document)` word by word, modulo 2⁶⁴; one-to-one in either text.
    """
    rotated = (documents << np.uint64(23)) | (documents >> np.uint64(41))
    return queries * _ODD + rotated


def table_keys(table: pa.Table) -> np.ndarray:
    """Pair keys (n, 2) of a shard's rows."""
    return pair_keys(
        column_to_words(table["query_digest"]), column_to_words(table["document_digest"])
    )


@dataclass
class _Run:
    """Distinct pairs; `fill` needs them sorted by the first word of their keys, then the second."""

    high: np.ndarray  # (n,) uint64
    low: np.ndarray  # (n,) uint64
    scores: np.ndarray  # (n,) float32

    def __len__(self) -> int:
        return len(self.high)

    def joined(self, other: _Run) -> _Run:
        """The pairs of both, not sorted. Empties this run: a column is freed as it is copied."""
        columns = []
        for name in ("high", "low", "scores"):
            columns.append(np.concatenate([getattr(self, name), getattr(other, name)]))
            setattr(self, name, columns[-1][:0])
        return _Run(*columns)

    def sort(self) -> None:
        """Sort by key; equal keys keep their order."""
        order = sort_order(self.high, self.low)
        for name in ("high", "low", "scores"):
            setattr(self, name, getattr(self, name)[order])

    def fill(self, keys: np.ndarray, scores: np.ndarray) -> None:
        """Replace the NaN entries of `scores` (n,) whose keys (n, 2) this run contains."""
        rows = np.flatnonzero(np.isnan(scores))
        position = np.searchsorted(self.high, keys[rows, 0])
        while len(rows):  # runs once unless first words agree by chance
            inside = position < len(self)
            rows, position = rows[inside], position[inside]
            same = self.high[position] == keys[rows, 0]
            rows, position = rows[same], position[same]
            hit = self.low[position] == keys[rows, 1]
            scores[rows[hit]] = self.scores[position[hit]]
            rows, position = rows[~hit], position[~hit] + 1


def sort_order(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Positions (n,) that sort keys by first word, then second; equal keys keep their order."""
    order = np.argsort(high, kind="stable")
    ordered = high[order]
    equal = ordered[1:] == ordered[:-1]
    if equal.any():  # equal keys; different ones hardly ever share their first word
        tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
        rows = order[tied]
        order[tied] = rows[np.lexsort((low[rows], high[rows]))]
    return order


def first_of_each(keys: np.ndarray) -> np.ndarray:
    """Positions of the first row of every distinct key, ascending.

    Example:
        >>> first_of_each(np.array([[1, 1], [2, 2], [1, 1]], dtype=np.uint64)).tolist()
        [0, 1]
    """
    order = sort_order(keys[:, 0], keys[:, 1])
    ordered = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.sort(order[new])


class PairIndex:
    """Pair key → score; the score added first wins.

    It consists of a few sorted runs, each at least twice as long as the next, so adding shards one
    by one costs O(n log n) in total.

    Example:
        >>> index = PairIndex()
        >>> keys = np.array([[1, 1], [2, 2], [1, 1]], dtype=np.uint64)
        >>> index.add(keys, np.array([0.5, 0.25, 9], dtype=np.float32)).tolist()
        [0, 1]
        >>> index.lookup(np.array([[2, 2], [1, 1], [3, 3]], dtype=np.uint64)).tolist()
        [0.25, 0.5, nan]
        >>> len(index)
        2
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """Scores (n,) float32 of keys (n, 2), NaN where a key is missing."""
        scores = np.full(len(keys), np.nan, dtype=np.float32)
        for run in self._runs:
            run.fill(keys, scores)
        return scores

    def add(self, keys: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Add keys (n, 2) with their scores (n,); pairs already in the index keep their score.

        Returns:
            The rows that are new, ascending.
        """
        new = first_of_each(keys)
        new = new[np.isnan(self.lookup(keys[new]))]
        run = _Run(keys[new, 0], keys[new, 1], scores[new])
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = self._runs.pop().joined(run)
        if len(run):
            run.sort()
            self._runs.append(run)
        return new
