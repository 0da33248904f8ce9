"""The pools of several collections as one training, with their documents by position."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import pyarrow as pa

from retrieval_kd.data.texts import Texts
from retrieval_kd.files import digest_text
from retrieval_kd.training.batches.pools import Pools
from retrieval_kd.training.batches.slates import Pool


class JoinedTexts(Texts):
    """Texts of several collections, one after the other, to be read by position.

    Collections may use the same IDs, so nothing is looked up by ID here.

    Args:
        parts: the texts of each collection; those of part n start at position `offsets[n]`.
    """

    def __init__(self, parts: Sequence[Texts]) -> None:
        self.parts = list(parts)
        self.offsets = [0, *accumulate(map(len, self.parts))][:-1]
        self._count = sum(map(len, self.parts))
        self.noun = self.parts[0].noun
        self.digest = digest_text(*(part.digest for part in self.parts))
        self.characters = sum(part.characters for part in self.parts)
        self._starts, self._of = [], []
        for part, offset in zip(self.parts, self.offsets, strict=True):
            self._starts += [offset + start for start in part._starts]
            self._of += [(part, number) for number in range(len(part._starts))]

    def __reduce__(self) -> tuple[type[JoinedTexts], tuple[list[Texts]]]:
        return JoinedTexts, (self.parts,)

    def _find(self, id: str) -> int:
        raise TypeError(f"{id!r} may be an ID of several collections: look up by position")

    def _batch(self, number: int) -> pa.RecordBatch:
        part, own = self._of[number]
        return part._batch(own)


def join_pools(
    parts: Mapping[str, tuple[Iterable[Pool], Texts]],
) -> tuple[Pools, Texts, dict[str, tuple[int, int, float]]]:
    """Join the pools of several collections, by name.

    Returns:
        The pools, the texts that their positions refer to, and the `groups` of a `TrainingJob`:
        each collection gets the same share of the training, however many queries it has. One
        collection is returned as it is, without groups.
    """
    if len(parts) == 1:
        [(pools, texts)] = parts.values()
        return Pools.of(pools), texts, {}
    joined = JoinedTexts([texts for _, texts in parts.values()])
    moved: list[Pools] = []
    groups, first = {}, 0
    for (name, (pools, _)), offset in zip(parts.items(), joined.offsets, strict=True):
        own = Pools.of(pools)
        groups[name] = (first, first + len(own), 1 / len(parts))
        first += len(own)
        moved.append(replace(own, positions=own.positions + offset, ignored=own.ignored + offset))
    return Pools.joined(moved), joined, groups
