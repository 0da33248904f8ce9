"""Lists of texts with IDs, read when needed, and their distinct texts after normalisation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from retrieval_kd.audit.normalise import normalise
from retrieval_kd.data.texts import Texts


class TextList:
    """Numbered texts with IDs; a collection's texts stay on disk.

    Args:
        source: where the texts come from, as the user named it.
        scope: digest of the collection that the IDs belong to; empty if it is unknown. Equal IDs
            mean the same text only within the same scope.
        positions: which of `texts` are in the list; by default all.

    Example:
        >>> texts = TextList("log.txt", "", {"1": "why tides", "2": "how far is the moon"})
        >>> len(texts), texts.id(1), texts.text(0), list(texts)
        (2, '2', 'why tides', ['why tides', 'how far is the moon'])
    """

    def __init__(
        self,
        source: str,
        scope: str,
        texts: Texts | Mapping[str, str],
        positions: np.ndarray | None = None,
    ) -> None:
        self.source, self.scope = source, scope
        self.collection = texts if isinstance(texts, Texts) else None
        self._dict: Mapping[str, str] = {} if isinstance(texts, Texts) else texts
        self._ids = list(self._dict)
        self.positions = positions if positions is not None else np.arange(len(texts))

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[str]:
        return (self.text(i) for i in range(len(self)))

    def id(self, i: int) -> str:
        place = int(self.positions[i])
        return self._ids[place] if self.collection is None else self.collection.id_at(place)

    def text(self, i: int) -> str:
        """A query's text; a document's title and text."""
        place = int(self.positions[i])
        if self.collection is None:
            return self._dict[self._ids[place]]
        return self.collection.at(place).full


class DistinctTexts:
    """The distinct texts of a list, numbered from 0; blank texts are left out.

    Example:
        >>> distinct = DistinctTexts(TextList("log", "", {"1": "Tides?", "2": " ", "3": "tides"}))
        >>> len(distinct), distinct.form(0), distinct.members(0).tolist(), distinct.empty.tolist()
        (1, 'tides', [0, 2], [1])
    """

    def __init__(self, texts: TextList) -> None:
        self.texts = texts
        digests, filled = np.zeros(len(texts), "S16"), np.zeros(len(texts), bool)
        for i, text in enumerate(texts):
            form = normalise(text)
            filled[i] = bool(form)
            digests[i] = hashlib.blake2b(
                form.encode("utf-8", errors="surrogatepass"), digest_size=16
            ).digest()
        rows = np.flatnonzero(filled)
        self.empty = np.flatnonzero(~filled)
        self.digests, first, number = np.unique(
            digests[rows], return_index=True, return_inverse=True
        )
        self.first = rows[first]  # (distinct,), position of the first text of each
        self._rows = rows[np.argsort(number, kind="stable")]
        self._ends = np.cumsum(np.bincount(number, minlength=len(first)))

    def __len__(self) -> int:
        return len(self.first)

    def form(self, j: int) -> str:
        """The normalised text."""
        return normalise(self.texts.text(int(self.first[j])))

    def members(self, j: int) -> np.ndarray:
        """Positions in the list of all texts with this normalised form, ascending."""
        return self._rows[self._ends[j - 1] if j else 0 : self._ends[j]]


def same_texts(
    evaluated: DistinctTexts, trained: DistinctTexts
) -> Iterator[tuple[int, int, float]]:
    """(evaluated, trained, 1) for every normalised text that both lists have."""
    _, left, right = np.intersect1d(
        evaluated.digests, trained.digests, assume_unique=True, return_indices=True
    )
    for i, j in zip(left.tolist(), right.tolist(), strict=True):
        yield i, j, 1.0
