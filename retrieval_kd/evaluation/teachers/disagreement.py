"""Pairs of documents that two teachers order differently, and who is right by the judgments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_kd.targets.normalise import Scores, aligned, z_scores


@dataclass(frozen=True)
class Clash:
    """Teacher A ranks document `a` above `b`, teacher B `b` above `a`.

    `strength` is the smaller of the two leads, in standard deviations of each teacher's scores for
    the query: both teachers are at least that sure.
    """

    query: str
    a: str
    b: str
    strength: float


def clashes(of_a: Scores, of_b: Scores) -> Iterator[tuple[str, list[str], np.ndarray, int]]:
    """Yield ID, documents (N), strengths (N, N) and the number of pairs without a tie per query.

    strength_ij = min(lead of i over j by A, lead of j over i by B), or 0 without a clash.

    Example:
        >>> [(query, documents, strengths, pairs)] = clashes(
        ...     {"q": {"x": 3.0, "y": 1.0}}, {"q": {"x": 0.1, "y": 0.9}})
        >>> documents, strengths.tolist(), pairs
        (['x', 'y'], [[0.0, 2.0], [0.0, 0.0]], 1)
    """
    for query, documents, scores in aligned([of_a, of_b]):
        a, b = (z_scores(row) for row in scores)  # (N,), (N,)
        lead_a, lead_b = a[:, None] - a, b - b[:, None]  # (N, N), of i by A, of j by B
        decided = int(((lead_a > 0) & (lead_b != 0)).sum())
        yield query, documents, np.maximum(np.minimum(lead_a, lead_b), 0.0), decided


def disagreement(
    of_a: Scores, of_b: Scores, qrels: Mapping[str, Mapping[str, int]], most: int = 5
) -> dict[str, Any]:
    """Measure how often two teachers order a pair differently, and who is right.

    `judged` counts clashes between documents of different gain, `a_right` is the share of them in
    which A prefers the better document (None if there are none). Unjudged documents have gain 0.
    `worst` holds the strongest clash of each of `most` queries.

    Example:
        >>> found = disagreement(
        ...     {"q": {"x": 3.0, "y": 1.0}}, {"q": {"x": 0.1, "y": 0.9}}, {"q": {"y": 1}})
        >>> found["pairs"], found["apart"], found["judged"], found["a_right"]
        (1, 1.0, 1, 0.0)
        >>> found["worst"][0]
        Clash(query='q', a='x', b='y', strength=2.0)
    """
    pairs = apart = judged = right = 0
    worst: list[Clash] = []
    for query, documents, strengths, decided in clashes(of_a, of_b):
        gains = np.array([max(qrels.get(query, {}).get(d, 0), 0) for d in documents])
        clash = strengths > 0
        better = np.sign(gains[:, None] - gains)[clash]
        pairs, apart = pairs + decided, apart + int(clash.sum())
        judged, right = judged + int((better != 0).sum()), right + int((better > 0).sum())
        if clash.any():
            i, j = np.unravel_index(int(strengths.argmax()), strengths.shape)
            worst.append(Clash(query, documents[i], documents[j], float(strengths[i, j])))
    worst.sort(key=lambda clash: (-clash.strength, clash.query))
    return {
        "pairs": pairs,
        "apart": apart / pairs if pairs else None,
        "judged": judged,
        "a_right": right / judged if judged else None,
        "worst": worst[:most],
    }
