"""Teachers side by side on judged queries: what each is worth, how far they agree, what each costs.

Nothing is asked here; all comes from a store. Printing is in `compare_show.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import Run
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.evaluation.teachers.disagreement import Clash, disagreement
from retrieval_kd.evaluation.teachers.facts import (
    MEASURE,
    Judged,
    Prices,
    agreement,
    cost,
    held_back,
    parsing,
    quality,
    ranks_few,
    relevant,
    shared,
)
from retrieval_kd.store.digests import query_digest
from retrieval_kd.store.scores import ScoreStore, TeacherKey
from retrieval_kd.targets.calibrate import Method
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
    method: Method = "platt",
    worst: int = 5,
) -> dict[str, Any]:
    """Everything that `rkd teach compare` writes, as a JSON-able record.

    Each teacher's nDCG@10 is that of re-ranking what it answered, over the judged queries of which
    it answered something. `shared` is the same over the queries and documents that all teachers
    scored, and only there are they tested against each other; who answered so little that
    leaving them out would give more queries is in `held_back`. Names are those of `store.names`.

    Args:
        teachers: names or fingerprints; empty: all that answered about the split's queries.
        candidates: look only at these pairs, and measure their own order too.
        aggregate: of pairs, of orders, or both, see `conclude.conclude_scores`.
        method: of calibration, cross-fitted over queries.
        worst: clashes to show of each two teachers.

    Raises:
        InputError: no teacher answered anything about these queries.
    """
    queries, drops = collection.query_texts(split), Drops()
    qrels: Judged = {
        query: {document: max(gain, 0) for document, gain in gains.items()}
        for query, gains in collection.qrels(split).items()
    }
    said = [
        _said(collection, queries, store, key, candidates, aggregate, drops)
        for key in dict.fromkeys(store.resolve(name) for name in teachers) or store.teachers()
    ]
    heard = [one for one in said if any(relevant(qrels, query) for query in one.scores)]
    if not heard:
        raise InputError(
            f"no teacher answered about judged queries of {collection.name}, split {split}",
            file=store.path,
            remedy="run `rkd score` with candidates of this collection and split",
        )
    names = store.names()  # of all teachers: what is shown here means the same everywhere
    lists = {names[one.key.fingerprint]: one.scores for one in heard}
    digests = {query_digest(text) for text in queries.values()}
    record: dict[str, Any] = {
        "format": FORMAT,
        "measure": MEASURE,
        "split": split,
        "queries": sum(relevant(qrels, query) for query in qrels),
        "teachers": {
            name: {
                **{k: getattr(one.key, k) for k in ("fingerprint", "kind", "model", "prompt")},
                "aggregate": one.aggregate,
                **quality(name, one.scores, qrels, method),
                "unanswered": one.asked - sum(map(len, one.scores.values())),
                **parsing(store, one.key, digests),
                "cost": cost(store, one.key, prices or Prices()),
            }
            for name, one in zip(lists, heard, strict=True)
        },
        "shared": shared(lists, qrels, candidates),
        "held_back": held_back(lists, qrels),
        "ranks_few": ranks_few(lists, qrels),
    }
    pairs = list(itertools.combinations(lists, 2))
    record["agreement"] = [{"a": a, "b": b, **agreement(lists[a], lists[b])} for a, b in pairs]
    record["disagreement"] = [
        {"a": a, "b": b, **_told(collection, qrels, disagreement(lists[a], lists[b], qrels, worst))}
        for a, b in pairs
    ]
    record["silent"] = [
        {
            "fingerprint": one.key.fingerprint,
            "model": one.key.model,
            "name": names[one.key.fingerprint],
        }
        for one in said
        if one not in heard
    ]
    record["drops"] = drops.summary()
    return record


@dataclass(frozen=True)
class _Said:
    key: TeacherKey
    aggregate: str | None
    asked: int  # pairs
    scores: Scores


def _said(
    collection: Collection,
    queries: Mapping[str, str],
    store: ScoreStore,
    key: TeacherKey,
    candidates: Run | None,
    aggregate: Sequence[str],
    drops: Drops,
) -> _Said:
    """What one teacher said of the candidates, but not of a query's own document."""
    runs = candidates.results if candidates else None
    pairs = {
        query: [d for d in ids if d != query and (runs is None or d in runs.get(query, {}))]
        for query, ids in known_pairs(collection, queries, store, key, drops).items()
    }
    pairs = {query: ids for query, ids in pairs.items() if ids}
    chosen = aggregation(key, aggregate)
    scores = scores_of(collection, queries, pairs, store, key, chosen)
    return _Said(key, chosen, sum(map(len, pairs.values())), scores)


def _told(collection: Collection, qrels: Judged, found: dict[str, Any]) -> dict[str, Any]:
    """A disagreement with the texts of its worst pairs."""
    return {**found, "worst": [_clash(collection, qrels, clash) for clash in found["worst"]]}


def _clash(collection: Collection, qrels: Judged, clash: Clash) -> dict[str, Any]:
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
