"""Scores of query–document pairs in columns, which read like a mapping of mappings.

A pair is a row of arrays, not a Python object: millions of them take 12 to 16 bytes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, Protocol

import numpy as np

from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.texts import Texts

Scores = Mapping[str, Mapping[str, float]]  # query ID → document ID → score
STACK = 1 << 18  # pairs that are worked on at once


class Numbering(Protocol):
    """Numbers of document IDs: `Texts`, or `Names` where there is no collection."""

    def position(self, id: str) -> int:
        """The number of an ID; an error if it has none."""

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """The numbers (n,) of IDs, −1 for one that has none."""

    def ids_at(self, positions: np.ndarray) -> list[str]:
        """The IDs (n,) of numbers."""


class Names:
    """Numbers IDs in the order in which they come.

    Example:
        >>> names = Names()
        >>> names.positions(["b", "a", "b"]).tolist(), names.ids_at(np.array([1]))
        ([0, 1, 0], ['a'])
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._places: dict[str, int] = {}

    def position(self, id: str) -> int:
        place = self._places.setdefault(id, len(self._ids))
        if place == len(self._ids):
            self._ids.append(id)
        return place

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        return np.fromiter(map(self.position, ids), np.int64, len(ids))

    def ids_at(self, positions: np.ndarray) -> list[str]:
        return [self._ids[place] for place in positions.tolist()]


@dataclass(frozen=True, eq=False, repr=False)
class ScoreTable(Mapping[str, dict[str, float]]):
    """Scores by query, as one array for all pairs; as a mapping: query ID → document ID → score.

    Args:
        queries: (Q,) IDs.
        starts: (Q + 1,) where each query's pairs begin, and the number of pairs n.
        documents: (n,) numbers of the documents.
        scores: (n,) NaN for a candidate without one.
        numbering: of the documents.

    Example:
        >>> table = ScoreTable.of({"q": {"a": 2.0, "b": 1.0}, "r": {"b": 0.5}})
        >>> table.starts.tolist(), table.documents.tolist(), table.scores.tolist()
        ([0, 2, 3], [0, 1, 1], [2.0, 1.0, 0.5])
        >>> table["q"], table.get("s", {}), table == {"q": {"a": 2.0, "b": 1.0}, "r": {"b": 0.5}}
        ({'a': 2.0, 'b': 1.0}, {}, True)
    """

    queries: Sequence[str]
    starts: np.ndarray
    documents: np.ndarray
    scores: np.ndarray
    numbering: Numbering

    @classmethod
    def of(
        cls,
        scores: Mapping[str, Iterable[str]],
        numbering: Numbering | None = None,
        *,
        known_only: bool = False,
    ) -> ScoreTable:
        """Put scores, or lists of candidates, into columns; a table stays as it is.

        Args:
            known_only: leave out documents without a number.

        Raises:
            InputError: a document has no number.
        """
        if isinstance(scores, ScoreTable) and numbering in (None, scores.numbering):
            return scores
        numbering = Names() if numbering is None else numbering
        lists = [v if isinstance(v, Mapping) else dict.fromkeys(v, np.nan) for v in scores.values()]
        starts = np.cumsum([0, *map(len, lists)])
        ids = list(chain.from_iterable(lists))
        values = np.fromiter(chain.from_iterable(v.values() for v in lists), np.float64, len(ids))
        table = cls(list(scores), starts, numbering.positions(ids), values, numbering)
        unknown = table.documents < 0
        if unknown.any():
            if not known_only:
                numbering.position(ids[int(unknown.argmax())])
            return table.keep(~unknown)
        return table

    def __getitem__(self, query: str) -> dict[str, float]:
        row = self._rows[query]
        at = slice(self.starts[row], self.starts[row + 1])
        ids = self.numbering.ids_at(self.documents[at])
        return dict(zip(ids, self.scores[at].tolist(), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self.queries)

    def __len__(self) -> int:
        return len(self.queries)

    def __contains__(self, query: object) -> bool:
        return query in self._rows

    def __repr__(self) -> str:
        return f"ScoreTable({len(self)} queries, {self.pairs} pairs)"

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {query: row for row, query in enumerate(self.queries)}

    @property
    def pairs(self) -> int:
        """Number of pairs n."""
        return len(self.documents)

    @property
    def counts(self) -> np.ndarray:
        """Number of pairs (Q,) of each query."""
        return np.diff(self.starts)

    @property
    def owners(self) -> np.ndarray:
        """Row of the query (n,) of each pair."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.counts)

    def ids(self) -> dict[str, list[str]]:
        """Every query's document IDs, for what asks document by document."""
        return {query: list(documents) for query, documents in self.items()}

    def with_scores(self, scores: np.ndarray) -> ScoreTable:
        """The same pairs with other scores (n,)."""
        return replace(self, scores=scores)

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Yield each query and where its pairs are."""
        bounds = self.starts.tolist()
        yield from zip(self.queries, map(slice, bounds, bounds[1:]), strict=True)

    def stacks(self) -> Iterator[np.ndarray]:
        """Yield the places (Q, N) of the pairs of queries with equally many, `STACK` at a time.

        A function of one query's (N,) then works on many queries at once.
        """
        counts = self.counts
        for count in np.unique(counts[counts > 0]).tolist():
            rows = np.flatnonzero(counts == count)
            for some in np.array_split(rows, -(-len(rows) * count // STACK)):
                yield self.starts[some][:, None] + np.arange(count)

    def keep(self, mask: np.ndarray) -> ScoreTable:
        """The pairs in a mask (n,), without the queries that have none left."""
        if mask.all() and self.counts.all():
            return self
        starts = np.concatenate([[0], np.cumsum(mask)])[self.starts]
        left = np.flatnonzero(np.diff(starts))
        return replace(
            self,
            queries=[self.queries[row] for row in left.tolist()],
            starts=np.concatenate([[0], starts[left + 1]]),
            documents=self.documents[mask],
            scores=self.scores[mask],
        )

    def of_queries(self, queries: Iterable[str]) -> ScoreTable:
        """The pairs of these queries in this order; a query that the table lacks has none."""
        wanted = list(queries)
        if wanted == self.queries:
            return self
        rows, counts = self._rows_of(wanted), self.counts_of(wanted)
        at = ranges(self.starts[rows], counts)
        columns: dict[str, Any] = {"documents": self.documents[at], "scores": self.scores[at]}
        return replace(self, queries=wanted, starts=np.cumsum([0, *counts]), **columns)

    def counts_of(self, queries: Sequence[str]) -> np.ndarray:
        """Number of pairs (Q,) of these queries."""
        rows = self._rows_of(queries)
        return np.where(rows < 0, 0, np.append(self.counts, 0)[rows])

    def _rows_of(self, queries: Sequence[str]) -> np.ndarray:
        """Row (Q,) of each query, −1 for one that the table lacks."""
        return np.array([self._rows.get(query, -1) for query in queries], np.int64)

    def places(self, other: ScoreTable) -> np.ndarray:
        """Where in this table each of another's pairs (n,) is, −1 for one that it lacks.

        Example:
            >>> names = Names()
            >>> table = ScoreTable.of({"q": ["a", "b"], "r": ["a"]}, names)
            >>> table.places(ScoreTable.of({"r": ["b", "a"], "q": ["b"]}, names)).tolist()
            [-1, 2, 1]
        """
        assert self.numbering is other.numbering
        if self.has_pairs_of(other):
            return np.arange(other.pairs)
        found = np.full(other.pairs, -1)
        rows, counts = self._rows_of(other.queries), self.counts_of(other.queries)
        blocks = np.cumsum(counts + other.counts) // STACK  # queries are compared by the block
        ends = [*(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(other)]
        for first, end in pairwise([0, *ends]):
            own = ranges(self.starts[rows[first:end]], counts[first:end])
            part = slice(other.starts[first], other.starts[end])
            size = 1 + max(self.documents[own].max(initial=0), other.documents[part].max(initial=0))
            numbers = np.arange(end - first) * size
            keys = np.repeat(numbers, counts[first:end]) + self.documents[own]
            if not len(keys):
                continue
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            asked = np.repeat(numbers, other.counts[first:end]) + other.documents[part]
            at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
            found[part] = np.where(keys[at] == asked, own[order[at]], -1)
        return found

    def has_pairs_of(self, other: ScoreTable) -> bool:
        """Whether another table has the same pairs in the same order."""
        same = self.queries == other.queries and np.array_equal(self.starts, other.starts)
        return same and np.array_equal(self.documents, other.documents)

    def scores_for(self, other: ScoreTable) -> np.ndarray:
        """The scores (n,) of another table's pairs, NaN where this one lacks the pair."""
        if self.has_pairs_of(other):
            return self.scores
        return np.append(self.scores, self.scores.dtype.type(np.nan))[self.places(other)]


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Join the ranges of so many numbers from each start.

    Example:
        >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(counts)
    return np.repeat(starts - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)


def in_one_numbering(lists: Sequence[Scores]) -> list[ScoreTable]:
    """Put scores into columns whose documents have the same numbers."""
    tables = [scores for scores in lists if isinstance(scores, ScoreTable)]
    if len(tables) == len(lists) and len({id(table.numbering) for table in tables}) < 2:
        return tables
    names = Names()
    return [ScoreTable.of(scores, names) for scores in lists]


def with_relevant(
    candidates: Mapping[str, Iterable[str]], qrels: Qrels, documents: Texts
) -> ScoreTable:
    """Append each query's missing relevant documents to its candidates, as training does.

    Relevant documents that the collection lacks are left out. An appended pair has no score.
    """
    table = ScoreTable.of(candidates, documents)
    gains = {q: {d: 1.0 for d, g in qrels[q].items() if g > 0} for q in table.queries if q in qrels}
    relevant = ScoreTable.of(gains, documents, known_only=True)
    more = relevant.keep(table.places(relevant) < 0).of_queries(table.queries)
    if not more.pairs:
        return table
    old = np.arange(table.pairs) + more.starts[table.owners]
    new = np.arange(more.pairs) + table.starts[1:][more.owners]
    positions = np.empty(table.pairs + more.pairs, np.int64)
    values = np.full(len(positions), np.nan, table.scores.dtype)
    positions[old], positions[new], values[old] = table.documents, more.documents, table.scores
    return replace(table, starts=table.starts + more.starts, documents=positions, scores=values)
