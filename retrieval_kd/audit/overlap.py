"""Comparison of two lists of texts by all checks; the result is every overlapping pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from retrieval_kd.audit.near import near_pairs
from retrieval_kd.audit.neighbours import Encoder, neighbour_pairs
from retrieval_kd.audit.ngrams import ngram_pairs, too_short
from retrieval_kd.audit.texts import DistinctTexts, TextList, same_texts
from retrieval_kd.errors import Drops

OVERLAP_KINDS = ("id", "exact", "near", "ngram", "embedding")  # the most certain first
SHOWN = 200  # characters of a text in a pair


@dataclass(frozen=True)
class Limits:
    """Thresholds from which two texts overlap."""

    near: float  # Jaccard coefficient of runs of five characters
    ngram: int  # words in an n-gram
    share: float = 0.5  # of the shorter text's n-grams
    cosine: float = 0.95  # of the embeddings
    most: int = 10  # partners listed for each evaluated text


QUERIES = Limits(near=0.6, ngram=8)
DOCUMENTS = Limits(near=0.5, ngram=13)


@dataclass
class Overlap:
    """A pair of an evaluated text and a training text that overlap.

    Args:
        what: "query", "relevant document" (to an evaluated query) or "document" (to none).
        train: the source of the training text.
        kinds: kind of overlap → similarity.
        queries: IDs of the affected evaluated queries.
    """

    what: str
    eval_id: str
    train: str
    train_id: str
    kinds: dict[str, float]
    eval_text: str = ""
    train_text: str = ""
    queries: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        kinds = {kind: round(self.kinds[kind], 4) for kind in OVERLAP_KINDS if kind in self.kinds}
        return {**self.__dict__, "kind": next(iter(kinds)), "kinds": kinds}


# Evaluated text → training text → kind of overlap → similarity, by positions in the two lists.
Partners = dict[int, dict[int, dict[str, float]]]


def find_overlaps(
    evaluated: DistinctTexts,
    trained: DistinctTexts,
    limits: Limits,
    drops: Drops,
    *,
    encoder: Encoder | None = None,
    documents: bool = False,
) -> Partners:
    """Find overlapping pairs of two lists, at most `limits.most` for each evaluated text.

    Example:
        >>> test = TextList("test", "", {"q1": "Why tides?", "q2": "how far is the sun"})
        >>> train = TextList("train", "", {"t7": "why  TIDES", "t8": "bread and butter"})
        >>> find_overlaps(DistinctTexts(test), DistinctTexts(train), QUERIES, Drops())
        {0: {0: {'exact': 1.0, 'near': 1.0}}}
    """
    distinct: Partners = {}  # by numbers of distinct texts
    checks: dict[str, Iterable[tuple[int, int, float]]] = {
        "exact": same_texts(evaluated, trained),
        "near": near_pairs(evaluated, trained, limits.near, limits.most),
        "ngram": ngram_pairs(evaluated, trained, limits.ngram, limits.share, limits.most),
    }
    if encoder is not None:
        checks["embedding"] = neighbour_pairs(
            evaluated, trained, encoder, limits.cosine, limits.most, documents=documents
        )
    for kind, pairs in checks.items():
        for i, j, similarity in pairs:
            distinct.setdefault(i, {}).setdefault(j, {})[kind] = similarity
    _count_unchecked(evaluated, trained, limits, drops)
    partners = _same_ids(evaluated.texts, trained.texts)
    for i, copies in distinct.items():
        for e in evaluated.members(i).tolist():
            own = partners.setdefault(e, {})
            for j, kinds in copies.items():
                for t in trained.members(j).tolist():
                    own[t] = {**own.get(t, {}), **kinds}
                    if len(own) >= 4 * limits.most:  # a text may occur thousands of times
                        break
    return {
        e: _strongest(own, limits.most, evaluated.texts.id(e), drops) for e, own in partners.items()
    }


def sort_key(kinds: dict[str, float]) -> tuple[float, ...]:
    """Return a key that sorts the strongest overlaps first.

    They are compared by similarity of the most certain kind, then the next.
    """
    return tuple(-kinds.get(kind, 0.0) for kind in OVERLAP_KINDS)


def _same_ids(evaluated: TextList, trained: TextList) -> Partners:
    """Pairs with the same ID, within one collection; elsewhere equal IDs mean nothing."""
    if not evaluated.scope or evaluated.scope != trained.scope:
        return {}
    place_of = {trained.id(t): t for t in range(len(trained))}
    ids = ((e, evaluated.id(e)) for e in range(len(evaluated)))
    return {e: {place_of[id]: {"id": 1.0}} for e, id in ids if id in place_of}


def _strongest(
    partners: dict[int, dict[str, float]], most: int, id: str, drops: Drops
) -> dict[int, dict[str, float]]:
    if len(partners) > most:
        drops.add("evaluated text with more overlaps than are listed", id)
        ranked = sorted(partners, key=lambda t: (sort_key(partners[t]), t))
        return {t: partners[t] for t in ranked[:most]}
    return partners


def _count_unchecked(
    evaluated: DistinctTexts, trained: DistinctTexts, limits: Limits, drops: Drops
) -> None:
    for side, texts in (("evaluated", evaluated), ("trained", trained)):
        source = texts.texts.source
        if len(texts.empty):
            example = texts.texts.id(int(texts.empty[0]))
            drops.add(f"empty {side} text of {source}, compared by ID only", example,
                      len(texts.empty))  # fmt: skip
        short = too_short(texts, limits.ngram)
        if short:
            members = sum(len(texts.members(j)) for j in short)
            drops.add(
                f"{side} text of {source} under {limits.ngram} words: no n-gram check",
                texts.texts.id(int(texts.first[short[0]])),
                members,
            )
