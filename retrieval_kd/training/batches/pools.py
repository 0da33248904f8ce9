"""The pools of a training in columns: a `Pool` is made when it is drawn, and views their arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import overload

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.scores import Scores, ScoreTable, with_relevant
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.teachers.comparing.conclude import PairPreferences
from retrieval_kd.training.batches.slates import NOTHING, Pool, PoolPairs

PACKED = 4_096  # pools that are objects at one time


@dataclass(frozen=True)
class Pools(Sequence[Pool]):
    """Pools one after the other, with the arrays of all their candidates.

    Args:
        queries: (P,) texts.
        starts: (P + 1,) where each pool's candidates begin, and their number n.
        positions, teacher, gains: (n,), and members: (T, n), as in `Pool`.
        ignored_starts, ignored: (P + 1,) and (m,), the positions that each pool ignores.
        pairs: (P,), if an objective trains on a pairwise teacher's answers.

    Example:
        >>> one = Pool("q", np.array([5, 3]), np.array([2.0, 1.0]), np.array([1, 0]))
        >>> pools = Pools.of([one, one.select(np.array([True, False]))])
        >>> len(pools), pools.starts.tolist(), pools[1].positions.tolist()
        (2, [0, 2, 3], [5])
    """

    queries: list[str]
    starts: np.ndarray
    positions: np.ndarray
    teacher: np.ndarray
    gains: np.ndarray
    members: np.ndarray | None
    ignored_starts: np.ndarray
    ignored: np.ndarray
    pairs: Sequence[PoolPairs | None]

    @classmethod
    def of(cls, pools: Iterable[Pool]) -> Pools:
        """Pack pools into columns, without ever having all of them as objects.

        Pools that are in columns stay as they are.
        """
        if isinstance(pools, Pools):
            return pools
        left = iter(pools)
        chunks = iter(lambda: list(islice(left, PACKED)), [])
        return cls.joined([cls.joined(list(map(_alone, chunk))) for chunk in chunks])

    @classmethod
    def joined(cls, parts: Sequence[Pools]) -> Pools:
        """Join pools in their order."""
        if len(parts) == 1:
            return parts[0]
        parts = parts or [_alone(Pool("", NOTHING, np.zeros(0, np.float32), NOTHING))[:0]]

        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts], axis=-1)

        def starts(name: str) -> np.ndarray:
            return np.cumsum(np.concatenate([[0], *(np.diff(getattr(p, name)) for p in parts)]))

        return cls(
            [query for part in parts for query in part.queries],
            starts("starts"),
            column("positions"),
            column("teacher"),
            column("gains"),
            None if parts[0].members is None else column("members"),
            starts("ignored_starts"),
            column("ignored"),
            [pairs for part in parts for pairs in part.pairs],
        )

    def __len__(self) -> int:
        return len(self.queries)

    @overload
    def __getitem__(self, index: int) -> Pool: ...

    @overload
    def __getitem__(self, index: slice) -> Pools: ...

    def __getitem__(self, index: int | slice) -> Pool | Pools:
        rows = range(len(self))[index]
        if isinstance(rows, range):
            if rows.step != 1:
                return Pools.of(self[row] for row in rows)
            first, end = rows.start, max(rows.start, rows.stop)
        else:
            first, end = rows, rows + 1
        at = slice(self.starts[first], self.starts[end])
        ignored = slice(self.ignored_starts[first], self.ignored_starts[end])
        members = None if self.members is None else self.members[:, at]
        columns = (self.positions[at], self.teacher[at], self.gains[at], members)
        if not isinstance(rows, range):
            return Pool(self.queries[first], *columns, self.ignored[ignored], self.pairs[first])
        return Pools(
            self.queries[first:end],
            self.starts[first : end + 1] - at.start,
            *columns,
            self.ignored_starts[first : end + 1] - ignored.start,
            self.ignored[ignored],
            self.pairs[first:end],
        )


def _alone(pool: Pool) -> Pools:
    starts, ignored = (np.array([0, len(part)]) for part in (pool.positions, pool.ignored))
    columns = (pool.positions, pool.teacher, pool.gains, pool.members)
    return Pools([pool.query], starts, *columns, ignored, pool.ignored, [pool.pairs])


def build_pools(
    queries: Mapping[str, str],
    candidates: Mapping[str, Iterable[str]],
    collection: Collection,
    qrels: Qrels,
    teacher: Scores | None,
    drops: Drops,
    *,
    judged_only: bool = True,
    members: Sequence[Scores] = (),
    sources: Mapping[str, str] | None = None,
    pairs: Mapping[str, PairPreferences] | None = None,
) -> Pools:
    """Build a pool for each query that can be trained on, and count the others in `drops`.

    A query needs at least two candidates, among them a judged relevant document or one with a
    teacher score. Judged relevant documents are candidates even if no first stage found them.

    Args:
        teacher: the fused teacher scores.
        judged_only: leave out queries with neither judgment nor teacher score. Objectives on
            vectors or on the student itself need neither.
        members: the scores of each single teacher, for `Pool.members`.
        sources: query → the document it was made from, see `Pool.ignored`.
        pairs: query → a pairwise teacher's answers, for `Pool.pairs`.

    Raises:
        InputError: no query is left.
    """
    documents, ids = collection.documents, list(queries)
    found = ScoreTable.of(candidates, documents).of_queries(ids)
    table = with_relevant(found, qrels, documents)
    owners = table.owners  # (n,)

    def per_query(mask: np.ndarray) -> np.ndarray:
        return np.bincount(owners[mask], minlength=len(ids))  # (Q,)

    judged = {query: qrels[query] for query in ids if query in qrels}
    gains = ScoreTable.of(judged, documents, known_only=True).scores_for(table)
    gains = np.maximum(0, np.nan_to_num(gains)).astype(np.int64)  # (n,)
    fused = ScoreTable.of(teacher or {}, documents)
    scores = fused.scores_for(table).astype(np.float32)  # (n,)
    unscored = np.isnan(scores)

    scored = fused.counts_of(ids) > 0  # (Q,)
    blank = judged_only & ~scored & (per_query(gains > 0) == 0)
    few = ~blank & (table.counts < 2)
    kept = ~blank & ~few
    positive = per_query(unscored & (gains > 0))
    unanswered = np.array([pairs is not None and query not in pairs for query in ids], bool)
    drops.add_all(
        {
            "query without a relevant document or teacher score": blank,
            "query with fewer than two candidates": few,
            "relevant document without a teacher score (masked; `rkd score --judged SPLIT`)": (
                positive * (kept & scored)
            ),
            "candidate without a teacher score (masked)": (
                (per_query(unscored) - positive) * (kept & scored)
            ),
            "query without an answer about pairs": unanswered & kept,
        },
        ids,
    )
    if not kept.any():
        raise InputError(
            "no query to train on: " + "; ".join(drops.summary()),
            remedy="retrieve and score candidates for the queries of this split",
        )
    order = np.lexsort((np.where(unscored, np.inf, -scores), owners))  # stable
    order = order[kept[owners[order]]]
    left = [ids[row] for row in np.flatnonzero(kept).tolist()]
    made_from = {query: [sources[query]] for query in left if query in sources} if sources else {}
    source = ScoreTable.of(made_from, documents, known_only=True)
    source = source.keep(table.places(source) < 0).of_queries(left)
    alone = [ScoreTable.of(member, documents).scores_for(table)[order] for member in members]
    pools = Pools(
        [queries[query] for query in left],
        np.cumsum([0, *table.counts[kept]]),
        table.documents[order],
        scores[order],
        gains[order],
        np.array(alone, np.float32) if members else None,
        source.starts,
        source.documents,
        [None] * len(left),
    )
    if pairs is None:
        return pools
    listed = (documents.ids_at(pool.positions) for pool in pools)
    answers = [PoolPairs.of(i, *pairs.get(q, ())) for i, q in zip(listed, left, strict=True)]
    return replace(pools, pairs=answers)
