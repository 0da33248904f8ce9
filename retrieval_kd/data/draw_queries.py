"""Draws queries for training: dev queries held out of a train split, and unlabelled queries.

Unlabelled queries are titles and sentences of the collection's own documents. A teacher can score
any query, so a student can also train on queries that nobody has judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import Literal, TypeVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import Drops, InputError

V = TypeVar("V")

FEWEST_WORDS, MOST_WORDS = 6, 45  # of a sentence
END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n\s*\n")


def held_out(
    queries: Mapping[str, V], qrels: Mapping[str, Mapping[str, int]], count: int, seed: int
) -> dict[str, V]:
    """Draw at most `count` queries, in whole groups linked by relevant documents.

    Queries drawn one by one share relevant documents with the training queries (two thirds of
    SciFact's do), so a student that learned to prefer those documents looks better on dev than on a
    test split. Groups are drawn in random order; a group that does not fit is skipped. If one group
    holds nearly all queries, fewer than `count` are returned, possibly none.

    Example:
        >>> qrels = {"a": {"d1": 1}, "b": {"d1": 1, "d2": 1}, "c": {"d3": 1}, "d": {"d2": 1}}
        >>> sorted(held_out(dict.fromkeys("abcd"), qrels, 3, seed=0))
        ['a', 'b', 'd']
        >>> sorted(held_out(dict.fromkeys("abcd"), qrels, 2, seed=0))
        ['c']
    """
    # sorted, so that the collection's order does not matter
    groups = linked_groups({query: qrels.get(query, {}) for query in sorted(queries)})
    chosen: set[str] = set()
    for index in np.random.default_rng(seed).permutation(len(groups)):
        if len(chosen) + len(groups[index]) <= count:
            chosen.update(groups[index])
    return {query: value for query, value in queries.items() if query in chosen}


def linked_groups(qrels: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """Group query IDs: two are in one group if a chain of shared relevant documents joins them."""
    number: dict[str, int] = {}  # of each relevant document, as a node after the queries
    links = [
        (place, len(qrels) + number.setdefault(document, len(number)))
        for place, judged in enumerate(qrels.values())
        for document, gain in judged.items()
        if gain > 0
    ]
    nodes, ends = len(qrels) + len(number), np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (ends[0], ends[1])), shape=(nodes, nodes))
    groups: dict[int, list[str]] = {}
    for query, group in zip(qrels, connected_components(graph)[1].tolist(), strict=False):
        groups.setdefault(group, []).append(query)
    return list(groups.values())


def unlabelled_queries(
    collection: Collection,
    kind: Literal["titles", "sentences"],
    *,
    seed: int,
    limit: int | None = None,
    exclude: Set[str] = frozenset(),
    drops: Drops,
) -> list[tuple[str, str, str]]:
    """Draw at most `limit` queries in random order: (query ID, text, ID of the source document).

    `titles` draws every title once; `sentences` draws from each document the last sentence of 6 to
    45 words and one other at random. Repeated texts and texts in `exclude` (evaluation queries,
    compared after `normalise`) are left out and counted in `drops`.
    """
    if kind not in ("titles", "sentences"):
        raise InputError(f"no unlabelled queries of kind {kind!r}", remedy="titles or sentences")
    excluded = {normalise(text) for text in exclude}
    generator = np.random.default_rng(seed)
    queries: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    for query_id, text, document_id in _draw(collection, kind, generator):
        if limit is not None and len(queries) >= limit:
            break
        form = normalise(text)
        if form in excluded:
            drops.add("unlabelled query left out, it is among the excluded", query_id)
        elif form in seen:
            drops.add("unlabelled query left out, another has the same text", query_id)
        else:
            seen.add(form)
            queries.append((query_id, text, document_id))
    return queries


def normalise(text: str) -> str:
    """Remove differences of case, whitespace and punctuation at the ends.

    Example:
        >>> normalise("  What causes\\ttides? ")
        'what causes tides'
    """
    return " ".join(text.split()).casefold().strip(" .,;:!?\"'")


def each_once(queries: Mapping[str, str], drops: Drops) -> dict[str, str]:
    """Keep the first of the queries whose texts are the same, normalised; count the others.

    Example:
        >>> each_once({"a": "What causes tides?", "b": "what causes tides"}, Drops())
        {'a': 'What causes tides?'}
    """
    kept: dict[str, str] = {}
    for id, text in queries.items():
        if kept.setdefault(normalise(text), id) != id:
            drops.add("repeated query", id)
    return {id: queries[id] for id in kept.values()}


def sentences(text: str) -> list[str]:
    """Split a text into sentences at an end mark and a space, or at an empty line.

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
