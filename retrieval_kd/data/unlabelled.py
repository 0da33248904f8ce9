"""Queries where labels end: titles and sentences of the documents themselves, for distillation.

A teacher can judge any query, so a student may learn from texts that nobody has judged. Which
documents to score for them is first-stage retrieval's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Literal

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import Drops, InputError

FEWEST_WORDS, MOST_WORDS = 6, 45  # of a sentence
END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n\s*\n")


def unlabelled_queries(
    collection: Collection,
    kind: Literal["titles", "sentences"],
    *,
    seed: int,
    limit: int | None = None,
    exclude: Set[str] = frozenset(),
    drops: Drops | None = None,
) -> list[tuple[str, str, str]]:
    """Draw (query ID, text, ID of the document it is from), at most `limit`, in random order.

    `titles` gives every title once; `sentences` gives of each document the last sentence of 6 to 45
    words and one other at random. Texts whose `normalise`d form is in `exclude` (evaluation
    queries) are left out; these and repeats are counted, in `drops` or in a warning.
    """
    if kind not in ("titles", "sentences"):
        raise InputError(f"no unlabelled queries of kind {kind!r}", remedy="titles or sentences")
    excluded = {normalise(text) for text in exclude}
    own = Drops() if drops is None else drops
    generator = np.random.default_rng(seed)
    found: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    for query_id, text, document_id in _draw(collection, kind, generator):
        if limit is not None and len(found) >= limit:
            break
        form = normalise(text)
        if form in excluded:
            own.add("unlabelled query left out, it is among the excluded", query_id)
        elif form in seen:
            own.add("unlabelled query left out, another has the same text", query_id)
        else:
            seen.add(form)
            found.append((query_id, text, document_id))
    if drops is None:
        own.warn(collection.name)
    return found


def normalise(text: str) -> str:
    """Without differences of case, whitespace and punctuation at the ends.

    Example:
        >>> normalise("  What causes\\ttides? ")
        'what causes tides'
    """
    return " ".join(text.split()).casefold().strip(" .,;:!?\"'")


def sentences(text: str) -> list[str]:
    """A text's sentences by a plain rule: end mark and space, or an empty line.

    Example:
        >>> sentences("The moon pulls. So does\\nthe sun! Tides follow")
        ['The moon pulls.', 'So does the sun!', 'Tides follow']
    """
    return [" ".join(part.split()) for part in END.split(text) if part.strip()]


def _draw(
    collection: Collection, kind: str, generator: np.random.Generator
) -> Iterator[tuple[str, str, str]]:
    for position in generator.permutation(len(collection.documents)):
        document = collection.documents.at(int(position))
        drawn = _title(document) if kind == "titles" else _sentences(document, generator)
        for query_id, text in drawn:
            yield query_id, text, document.id


def _title(document: Document) -> Iterator[tuple[str, str]]:
    title = " ".join(document.title.split())
    if title:
        yield f"title:{document.id}", title


def _sentences(document: Document, generator: np.random.Generator) -> Iterator[tuple[str, str]]:
    numbered = enumerate(sentences(document.text))
    fit = [(k, s) for k, s in numbered if FEWEST_WORDS <= len(s.split()) <= MOST_WORDS]
    if not fit:
        return
    chosen = [fit.pop()]
    if fit:
        chosen.append(fit[int(generator.integers(len(fit)))])
    for k, sentence in chosen:
        yield f"sentence:{document.id}:{k}", sentence
