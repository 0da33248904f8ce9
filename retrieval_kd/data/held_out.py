"""Sets dev queries aside that share no relevant document with the remaining queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

V = TypeVar("V")


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
    queries_of: dict[str, list[str]] = {}
    for query, judged in qrels.items():
        for document, gain in judged.items():
            if gain > 0:
                queries_of.setdefault(document, []).append(query)
    seen: set[str] = set()
    groups = []
    for query in qrels:
        if query in seen:
            continue
        seen.add(query)
        group = [query]
        for member in group:  # grows during the loop
            for document, gain in qrels[member].items():
                new = [q for q in queries_of.get(document, []) if gain > 0 and q not in seen]
                seen.update(new)
                group += new
        groups.append(group)
    return groups
