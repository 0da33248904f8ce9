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
    """Distinct pairs sorted by the first word of their keys, then the second."""

    high: np.ndarray  # (n,) uint64
    low: np.ndarray  # (n,) uint64
    scores: np.ndarray  # (n,) float32

    def __len__(self) -> int:
        return len(self.high)

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


def sort_order(keys: np.ndarray) -> np.ndarray:
    """Positions that sort the keys; equal keys keep their order."""
    order = np.argsort(keys[:, 0], kind="stable")
    high = keys[order, 0]
    equal = high[1:] == high[:-1]
    if equal.any():  # equal keys; different ones hardly ever share their first word
        tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
        rows = order[tied]
        order[tied] = rows[np.lexsort((keys[rows, 1], keys[rows, 0]))]
    return order


def first_of_each(keys: np.ndarray) -> np.ndarray:
    """Positions of the first row of every distinct key, ascending.

    Example:
        >>> first_of_each(np.array([[1, 1], [2, 2], [1, 1]], dtype=np.uint64)).tolist()
        [0, 1]
    """
    order = sort_order(keys)
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
        keys, scores = keys[new], scores[new]
        while self._runs and len(self._runs[-1]) < 2 * len(keys):
            last = self._runs.pop()
            keys = np.concatenate([np.stack([last.high, last.low], axis=1), keys])
            scores = np.concatenate([last.scores, scores])
        if len(keys):
            order = sort_order(keys)
            high, low = keys[order].T
            run = _Run(np.ascontiguousarray(high), np.ascontiguousarray(low), scores[order])
            self._runs.append(run)
        return new
