"""Shared n-grams of words: texts that copy a part of each other, unlike near-duplicates.

The lengths come from GPT-3's contamination study (Brown et al. 2020, appendix C): 13 words for long
texts, never fewer than 8. There one shared n-gram is enough. Here a share of the shorter text's
n-grams is required, because boilerplate would otherwise connect whole collections.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from retrieval_kd.audit.normalise import word_ngrams, words
from retrieval_kd.audit.texts import DistinctTexts
from retrieval_kd.progress import bar

BLOCK = 4_000_000  # n-grams of trained texts in memory at a time: about 100 MB with sorting


def ngram_pairs(
    evaluated: DistinctTexts, trained: DistinctTexts, n: int, share: float, most: int
) -> Iterator[tuple[int, int, float]]:
    """Yield (evaluated, trained, s) with s = |A ∩ B| / min(|A|, |B|) ≥ `share`.

    A and B are sets of n-grams. A text has at most `most` partners per block; a text under `n`
    words has none.

    Example:
        >>> from retrieval_kd.audit.texts import TextList
        >>> text = "the tides follow the moon because its pull is stronger on the near side"
        >>> test = DistinctTexts(TextList("a", "", {"d": text}))
        >>> train = DistinctTexts(TextList("b", "", {"x": f"As we know, {text}, and so on."}))
        >>> list(ngram_pairs(test, train, 8, 0.5, 20))
        [(0, 0, 1.0)]
    """
    for block in _blocks(trained, n):
        with bar(f"{n}-grams of {evaluated.texts.source}", len(evaluated)) as progress:
            for i in range(len(evaluated)):
                for j, similarity in block.overlaps(word_ngrams(evaluated.form(i), n), share, most):
                    yield i, j, similarity
                progress.advance()


def too_short(texts: DistinctTexts, n: int) -> list[int]:
    """The distinct texts with fewer than `n` words, which have no n-gram to compare."""
    return [j for j in range(len(texts)) if len(words(texts.form(j))) < n]


class _Block:
    """The sorted n-grams of some training texts, each with its text."""

    def __init__(self, start: int, ngrams: list[np.ndarray]) -> None:
        self._start = start
        self._sizes = np.array([len(own) for own in ngrams], dtype=np.int64)  # (texts,)
        hashes = np.concatenate(ngrams)
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._owner = np.repeat(np.arange(len(ngrams), dtype=np.int32), self._sizes)[order]

    def overlaps(self, ngrams: np.ndarray, share: float, most: int) -> list[tuple[int, float]]:
        """(training text, s) for the n-grams of one evaluated text, best first."""
        if not len(ngrams):
            return []
        low = np.searchsorted(self._hashes, ngrams, side="left")
        high = np.searchsorted(self._hashes, ngrams, side="right")
        hit = low < high
        if not hit.any():
            return []
        common = np.zeros(len(self._sizes), dtype=np.int64)
        for a, b in zip(low[hit].tolist(), high[hit].tolist(), strict=True):
            common[self._owner[a:b]] += 1  # each text has each n-gram once
        sharing = np.flatnonzero(common)
        similarity = common[sharing] / np.minimum(self._sizes[sharing], len(ngrams))
        order = np.argsort(-similarity, kind="stable")[:most]
        return [
            (self._start + int(sharing[k]), float(similarity[k]))
            for k in order
            if similarity[k] >= share
        ]


def _blocks(texts: DistinctTexts, n: int) -> Iterator[_Block]:
    waiting: list[np.ndarray] = []
    start = total = 0
    for j in range(len(texts)):
        waiting.append(word_ngrams(texts.form(j), n))
        total += len(waiting[-1])
        if total >= BLOCK or j + 1 == len(texts):
            if total:
                yield _Block(start, waiting)
            waiting, start, total = [], j + 1, 0
