"""Near-duplicates: pairs whose shingles overlap, found by MinHash and checked exactly.

Candidates come from datasketch's MinHash with locality-sensitive hashing. Their Jaccard coefficient
is then computed from the shingles themselves, so chance may miss a pair but never add one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from datasketch import MinHash, MinHashLSH

from retrieval_kd.audit.normalise import shingles
from retrieval_kd.audit.texts import DistinctTexts
from retrieval_kd.files import new_array
from retrieval_kd.progress import bar

PERMUTATIONS = 256
BLOCK = 4_096  # texts in the index at a time: about 100 MB
RECALL = 0.98  # probability that a pair exactly at the threshold becomes a candidate
SLACK = 0.1  # three standard deviations of an estimate from 256 permutations
KEPT_SHINGLES = 4_096  # texts whose shingles are kept between pairs


def bands(threshold: float) -> tuple[int, int]:
    """Bands b and rows r of the index.

    r is the largest with 1 − (1 − thresholdʳ)ᵇ ≥ 0.98, where b = 256 // r. The left side is the
    probability that a pair at the threshold agrees in at least one band (Leskovec, Rajaraman and
    Ullman, Mining of Massive Datasets, section 3.4.2); it is higher for more similar pairs.

    Example:
        >>> bands(0.5), bands(0.6), bands(0.8)
        ((64, 4), (51, 5), (28, 9))
    """
    best = (PERMUTATIONS, 1)
    for rows in range(1, PERMUTATIONS // 2 + 1):
        count = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            best = (count, rows)
    return best


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B| of two ascending arrays of distinct values.

    Example:
        >>> jaccard(np.array([1, 2, 3]), np.array([2, 3, 4]))
        0.5
    """
    common = len(np.intersect1d(left, right, assume_unique=True))
    union = len(left) + len(right) - common
    return common / union if union else 0.0


def near_pairs(
    evaluated: DistinctTexts, trained: DistinctTexts, threshold: float, most: int
) -> Iterator[tuple[int, int, float]]:
    """Yield (evaluated, trained, Jaccard) at or above `threshold`, `most` per evaluated text.

    The index holds one block of training texts at a time; signatures of 1 KiB a text are in a
    temporary file. Time grows with blocks × evaluated texts.

    Example:
        >>> from retrieval_kd.audit.texts import TextList
        >>> test = DistinctTexts(TextList("a", "", {"q": "what causes the tides of the sea"}))
        >>> train = DistinctTexts(TextList("b", "", {"1": "What causes the tides of the seas?",
        ...                                    "2": "who sailed first around the world"}))
        >>> [(i, train.texts.id(int(train.first[j])), round(s, 2))
        ...     for i, j, s in near_pairs(test, train, 0.6, 20)]
        [(0, '1', 0.96)]
    """
    if not len(evaluated) or not len(trained):
        return
    of_evaluated = lru_cache(maxsize=2)(lambda i: shingles(evaluated.form(i)))
    of_trained = lru_cache(maxsize=KEPT_SHINGLES)(lambda j: shingles(trained.form(j)))
    with tempfile.TemporaryDirectory(prefix="rkd-audit-") as folder:
        left = signatures(evaluated, Path(folder) / "evaluated.npy")
        right = signatures(trained, Path(folder) / "trained.npy")
        for start in range(0, len(trained), BLOCK):
            block = np.asarray(right[start : start + BLOCK])
            index = _index(block, threshold)
            for i, signature in enumerate(left):
                for j in _candidates(index, signature, block, threshold - SLACK, most):
                    similarity = jaccard(of_evaluated(i), of_trained(start + j))
                    if similarity >= threshold:
                        yield i, start + j, similarity


def signatures(texts: DistinctTexts, path: Path) -> np.ndarray:
    """MinHash values (texts, 256) uint32 in a read-only memory map."""
    made = new_array(path, (len(texts), PERMUTATIONS), np.uint32)
    # 32 of the 64 bits: as many as datasketch's permutations take
    pieces = ((shingles(texts.form(j)) >> np.uint64(32)).tolist() for j in range(len(texts)))
    with bar(f"hashing {texts.texts.source}", len(texts)) as progress:
        hashed = MinHash.generator(pieces, num_perm=PERMUTATIONS, hashfunc=int, scheme="affine32")
        for j, sketch in enumerate(hashed):
            made[j] = sketch.hashvalues
            progress.advance()
    made.flush()
    return np.load(path, mmap_mode="r")


def _index(block: np.ndarray, threshold: float) -> MinHashLSH:
    index = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
    for j, signature in enumerate(block):
        index.insert(j, _sketch(signature), check_duplication=False)
    return index


def _sketch(signature: np.ndarray) -> MinHash:
    return MinHash(
        hashvalues=signature, permutations=_permutations(), hashfunc=int, scheme="affine32"
    )


@lru_cache(maxsize=1)
def _permutations() -> np.ndarray:
    return MinHash(num_perm=PERMUTATIONS, scheme="affine32").permutations


def _candidates(
    index: MinHashLSH, signature: np.ndarray, block: np.ndarray, least: float, most: int
) -> list[int]:
    """Up to 2 · `most` texts of the block with the highest estimates, from `least` upwards."""
    candidates = np.array(sorted(index.query(_sketch(signature))), dtype=np.int64)
    if not len(candidates):
        return []
    estimates = (block[candidates] == signature).mean(axis=1)  # (candidates,)
    order = np.argsort(-estimates, kind="stable")[: 2 * most]
    return [int(candidates[k]) for k in order if estimates[k] >= least]
