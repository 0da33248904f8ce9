"""Compare teachers on judged queries: the quality of each, their agreement, their costs.

Everything is read from a store; no teacher is run. `show.py` prints the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.runs import Run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.evaluation.teachers.facts import (
    MEASURE,
    Clash,
    Prices,
    agreement,
    cost,
    disagreement,
    held_back,
    parsing,
    quality,
    ranks_few,
    relevant,
    shared,
)
from retrieval_kd.store.digests import query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.targets import CalibrationMethod
from retrieval_kd.targets.normalise import Scores
from retrieval_kd.teachers.comparing.conclude import aggregation
from retrieval_kd.teachers.score import scores_of
from retrieval_kd.teachers.stored import known_pairs

FORMAT = 1


def compare_teachers(
    collection: Collection,
    split: str,
    store: ScoreStore,
    teachers: Sequence[str] = (),
    *,
    candidates: Run | None = None,
    aggregate: Sequence[str] = (),
    prices: Prices | None = None,
    method: CalibrationMethod = "platt",
    worst: int = 5,
) -> dict[str, Any]:
    """Build the JSON-able record that `rkd teach compare` writes.

    Each teacher's nDCG@10 is that of re-ranking the documents it scored, over the judged queries
    for which it scored any. `shared` is the same over the queries and documents that all teachers
    scored; only there are they tested against each other. `held_back` names the teachers without
    which more queries would be shared. Names are those of `store.names`.

    Args:
        teachers: names or fingerprints; empty: all that scored documents of the split's queries.
        candidates: use only these pairs, and evaluate their own order too.
        aggregate: aggregation of pairs, of orders, or both, see `conclude.conclude_scores`.
        method: of calibration, cross-fitted over queries.
        worst: number of clashes to list for each two teachers.

    Raises:
        InputError: no teacher scored anything for these queries.
    """
    queries, drops = collection.query_texts(split), Drops()
    qrels: Qrels = {
        query: {document: max(gain, 0) for document, gain in gains.items()}
        for query, gains in collection.qrels(split).items()
    }
    every = [
        _stored_scores(collection, queries, store, key, candidates, aggregate, drops)
        for key in dict.fromkeys(store.resolve(name) for name in teachers) or store.teachers()
    ]
    scored = [stored for stored in every if any(relevant(qrels, q) for q in stored.scores)]
    if not scored:
        raise InputError(
            f"no teacher answered about judged queries of {collection.name}, split {split}",
            file=store.path,
            remedy="run `rkd score` with candidates of this collection and split",
        )
    names = store.names()  # unique among all teachers of the store, not only among those compared
    lists = {names[stored.key.fingerprint]: stored.scores for stored in scored}
    digests = {query_digest(text) for text in queries.values()}
    record: dict[str, Any] = {
        "format": FORMAT,
        "measure": MEASURE,
        "split": split,
        "queries": sum(relevant(qrels, query) for query in qrels),
        "teachers": {
            name: {
                **{k: getattr(stored.key, k) for k in ("fingerprint", "kind", "model", "prompt")},
                "aggregate": stored.aggregate,
                **quality(name, stored.scores, qrels, method),
                "unanswered": stored.pairs - sum(map(len, stored.scores.values())),
                **parsing(store, stored.key, digests),
                "cost": cost(store, stored.key, prices or Prices()),
            }
            for name, stored in zip(lists, scored, strict=True)
        },
        "shared": shared(lists, qrels, candidates),
        "held_back": held_back(lists, qrels),
        "ranks_few": ranks_few(lists, qrels),
    }
    pairs = list(itertools.combinations(lists, 2))
    record["agreement"] = [{"a": a, "b": b, **agreement(lists[a], lists[b])} for a, b in pairs]
    record["disagreement"] = []
    for a, b in pairs:
        facts = disagreement(lists[a], lists[b], qrels, worst)
        facts["worst"] = [_clash(collection, qrels, clash) for clash in facts["worst"]]
        record["disagreement"].append({"a": a, "b": b, **facts})
    record["silent"] = [
        {
            "fingerprint": stored.key.fingerprint,
            "model": stored.key.model,
            "name": names[stored.key.fingerprint],
        }
        for stored in every
        if stored not in scored
    ]
    record["drops"] = drops.summary()
    return record


@dataclass(frozen=True)
class _StoredScores:
    """One teacher's scores of a split's candidates."""

    key: TeacherKey
    aggregate: str | None
    pairs: int  # for which the store has an answer
    scores: Scores


def _stored_scores(
    collection: Collection,
    queries: Mapping[str, str],
    store: ScoreStore,
    key: TeacherKey,
    candidates: Run | None,
    aggregate: Sequence[str],
    drops: Drops,
) -> _StoredScores:
    """Read one teacher's scores, without those of a document whose ID is the query's."""
    runs = candidates.results if candidates else None
    pairs = {
        query: [d for d in ids if d != query and (runs is None or d in runs.get(query, {}))]
        for query, ids in known_pairs(collection, queries, store, key, drops).items()
    }
    pairs = {query: ids for query, ids in pairs.items() if ids}
    chosen = aggregation(key, aggregate)
    scores = scores_of(collection, queries, pairs, store, key, chosen)
    return _StoredScores(key, chosen, sum(map(len, pairs.values())), scores)


def _clash(collection: Collection, qrels: Qrels, clash: Clash) -> dict[str, Any]:
    def document(id: str) -> dict[str, Any]:
        text = collection.documents[id]
        return {"id": id, "text": text.full[:200], "gain": qrels.get(clash.query, {}).get(id)}

    return {
        "query_id": clash.query,
        "query": collection.queries[clash.query].full,
        "strength": clash.strength,
        "a_prefers": document(clash.a),
        "b_prefers": document(clash.b),
    }
