"""Compare teachers on judged queries: the quality of each, their agreement, their costs.

Everything is read from a store; no teacher is run. `show.py` prints the result.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.runs import Run
from retrieval_kd.data.scores import Scores
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.evaluation.diagnostics.calibration import calibration
from retrieval_kd.evaluation.diagnostics.fidelity import kendall, rbo
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.metrics.significance import compare
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import query_digest
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.summary import order_bias
from retrieval_kd.store.usage import Spent, read_usage
from retrieval_kd.targets import CalibrationMethod
from retrieval_kd.targets.normalise import aligned, rerank, z_scores
from retrieval_kd.teachers.comparing.conclude import aggregation
from retrieval_kd.teachers.score import scores_of
from retrieval_kd.teachers.stored import known_pairs

MEASURE = "ndcg@10"
FIRST = "candidates"  # the name of the order that is re-ranked


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens that a server reads and writes, and of an hour of this machine.

    None: unknown; for a server, the price recorded with the calls.
    """

    prompt: float | None = None
    answer: float | None = None
    hour: float | None = None

    def of(self, spent: Spent, served: bool) -> float | None:
        """Price the usage of a teacher on a server or on this machine; None if unknown.

        Example:
            >>> spent = Spent(calls=9, prompt_tokens=2_000_000, seconds=1800.0)
            >>> prices = Prices(prompt=0.5, hour=3.0)
            >>> prices.of(spent, served=True), prices.of(spent, served=False)
            (1.0, 1.5)
        """
        if not served:
            return None if self.hour is None else spent.seconds / 3600 * self.hour
        if self.prompt is None and self.answer is None:
            return spent.cost or None
        read, written = self.prompt or 0.0, self.answer or 0.0
        return (spent.prompt_tokens * read + spent.answer_tokens * written) / 1e6


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
    scored = [stored for stored in every if any(relevant(qrels, q) for q in stored[-1])]
    if not scored:
        raise InputError(
            f"no teacher answered about judged queries of {collection.name}, split {split}",
            file=store.path,
            remedy="run `rkd score` with candidates of this collection and split",
        )
    names = store.names()  # unique in the whole store
    lists = {names[key.fingerprint]: scores for key, _, _, scores in scored}
    digests = {query_digest(text) for text in queries.values()}
    record: dict[str, Any] = {
        "format": 1,
        "measure": MEASURE,
        "split": split,
        "queries": sum(relevant(qrels, query) for query in qrels),
        "teachers": {
            name: {
                **{k: getattr(key, k) for k in ("fingerprint", "kind", "model", "prompt")},
                "aggregate": chosen,
                **quality(name, scores, qrels, method),
                "unanswered": asked - sum(map(len, scores.values())),
                **parsing(store, key, digests),
                "cost": cost(store, key, prices or Prices()),
            }
            for name, (key, chosen, asked, scores) in zip(lists, scored, strict=True)
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
        {"fingerprint": key.fingerprint, "model": key.model, "name": names[key.fingerprint]}
        for key in (stored[0] for stored in every if stored not in scored)
    ]
    record["drops"] = drops.summary()
    return record


def _stored_scores(
    collection: Collection,
    queries: Mapping[str, str],
    store: ScoreStore,
    key: TeacherKey,
    candidates: Run | None,
    aggregate: Sequence[str],
    drops: Drops,
) -> tuple[TeacherKey, str | None, int, Scores]:
    """Read one teacher's scores, without those of a document whose ID is the query's.

    Also return the aggregation of its answers, and the number of pairs that it was asked about.
    """
    runs = candidates.results if candidates else None
    pairs = {
        query: [d for d in ids if d != query and (runs is None or d in runs.get(query, {}))]
        for query, ids in known_pairs(collection, queries, store, key, drops).items()
    }
    pairs = {query: ids for query, ids in pairs.items() if ids}
    chosen = aggregation(key, aggregate)
    scores = dict(scores_of(collection, queries, pairs, store, key, chosen))
    return key, chosen, sum(map(len, pairs.values())), scores


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


def relevant(qrels: Qrels, query: str) -> bool:
    """Whether a query has a relevant document besides itself."""
    return any(gain > 0 for document, gain in qrels.get(query, {}).items() if document != query)


def quality(name: str, scores: Scores, qrels: Qrels, method: CalibrationMethod) -> dict[str, Any]:
    """Measure one teacher against the judgments, over the queries it scored."""
    run = rerank(name, scores)
    judged = {query: qrels[query] for query in scores if relevant(qrels, query)}
    values = evaluate(judged, [run], [MEASURE]).per_query[name][MEASURE]
    taus, overlaps = [], []
    for query, gains in judged.items():
        ranking = list(run.results[query])
        gain = np.array([gains.get(document, 0) for document in ranking], dtype=np.float64)
        taus.append(kendall(np.array(list(run.results[query].values())), gain))
        # Equal gains stay in the teacher's own order: only the judgments count against it.
        overlaps.append(rbo(ranking, [ranking[i] for i in np.argsort(-gain, kind="stable")]))
    return {
        "queries": len(judged),
        "documents_per_query": float(np.mean([len(scores[query]) for query in judged])),
        MEASURE: float(np.mean(list(values.values()))),
        "per_query": values,
        "with_labels": {"kendall": _mean(taus), "rbo": _mean(overlaps)},
        "calibration": calibration(run, judged, method),
    }


def parsing(store: ScoreStore, key: TeacherKey, queries: set[str]) -> dict[str, Any]:
    """Count how answers about these queries parsed, and measure order bias.

    Both are None for a teacher whose answers are scores.
    """
    if key.is_pointwise:
        return {"statuses": None, "order_bias": None}
    rows = [
        row
        for row in AnswerStore(store.folder(key), key).rows()
        if row.answer is not None and row.query_digest in queries
    ]
    statuses = Counter(row.answer.status for row in rows if row.answer)
    return {
        "statuses": {name: statuses[name] for name in ("ok", "repaired", "unparsable")},
        "order_bias": asdict(order_bias(rows)) if key.kind == "pairwise" else None,
    }


def cost(store: ScoreStore, key: TeacherKey, prices: Prices) -> dict[str, Any] | None:
    """Sum up the cost of a teacher's stored answers, in total and per 1,000 queries."""
    spent = read_usage(store.folder(key))
    if spent is None:
        return None
    if key.is_pointwise:
        queries = len(set(store.read(key)["query_digest"].to_pylist()))
    else:
        queries = len(AnswerStore(store.folder(key), key).queries())
    per_1000 = {
        name: 1000 * getattr(spent, name) / queries if queries else None
        for name in ("calls", "prompt_tokens", "answer_tokens", "seconds")
    }
    # A teacher that reads tokens but has no known dtype runs on a server.
    price = prices.of(spent, served=spent.prompt_tokens > 0 and not key.dtype)
    per_1000["price"] = 1000 * price / queries if queries and price is not None else None
    return {"spent": asdict(spent), "queries": queries, "per_1000_queries": per_1000}


def shared(
    lists: Mapping[str, Scores], qrels: Qrels, candidates: Run | None
) -> dict[str, Any] | None:
    """Compare quality, with paired tests, over what all teachers scored; None if that is empty."""
    common = _common(list(lists.values()), qrels)
    if not common:
        return None
    systems = dict(lists)
    if candidates is not None:
        systems = {FIRST: candidates.results, **systems}
    runs = [
        rerank(name, {q: {d: scores[q][d] for d in common[q]} for q in common})
        for name, scores in systems.items()
    ]
    evaluation = evaluate({query: qrels[query] for query in common}, runs, [MEASURE])
    tests = compare(evaluation) if len(common) > 1 and len(runs) > 1 else []
    return {
        "queries": len(common),
        "documents_per_query": float(np.mean([len(ids) for ids in common.values()])),
        MEASURE: {run.name: evaluation.mean(run.name, MEASURE) for run in runs},
        "tests": [asdict(test) for test in tests],
    }


def held_back(lists: Mapping[str, Scores], qrels: Qrels) -> list[dict[str, Any]]:
    """List the teachers without which more queries would be shared, the most harmful first.

    Each comes with the number of queries that it scored, that all share, and that the others share.
    """
    shared = len(_common(list(lists.values()), qrels))
    harmful = []
    for name in lists if len(lists) > 1 else ():
        others = [scores for other, scores in lists.items() if other != name]
        without = len(_common(others, qrels))
        if without > shared:
            own = len(_common([lists[name]], qrels))
            harmful.append({"name": name, "queries": own, "shared": shared, "others": without})
    return sorted(harmful, key=lambda teacher: -teacher["others"])


def ranks_few(lists: Mapping[str, Scores], qrels: Qrels) -> dict[str, Any] | None:
    """Name the teachers that rank few documents per query, as garbled lists do; None if none does.

    Few means less than three quarters of what another teacher ranks. The record also has the
    documents per query that all teachers share, and that the other teachers share.
    """
    own = {name: _per_query(_common([scores], qrels)) for name, scores in lists.items()}
    weak = [name for name in own if own[name] < 0.75 * max(own.values())]
    if not weak:
        return None
    others = [scores for name, scores in lists.items() if name not in weak]
    shared = _per_query(_common(list(lists.values()), qrels))
    return {"names": weak, "shared": shared, "others": _per_query(_common(others, qrels))}


def _per_query(common: Mapping[str, Sequence[str]]) -> float:
    return float(np.mean([len(ids) for ids in common.values()])) if common else 0.0


def _common(lists: Sequence[Scores], qrels: Qrels) -> dict[str, list[str]]:
    """Map judged queries to the documents that all teachers scored, if these are two or more."""
    common: dict[str, list[str]] = {}
    for query in lists[0]:
        by_teacher = [scores.get(query, {}) for scores in lists]
        documents = [d for d in by_teacher[0] if all(d in scores for scores in by_teacher)]
        if len(documents) > 1 and relevant(qrels, query):
            common[query] = documents
    return common


def agreement(of_a: Scores, of_b: Scores) -> dict[str, Any]:
    """Average Kendall's τ-b and RBO over queries, on the documents that both teachers scored."""
    taus, overlaps, documents = [], [], 0
    for query in of_a:
        shared = [d for d in of_a[query] if d in of_b.get(query, {})]
        if len(shared) < 2:
            continue
        a, b = ({d: scores[query][d] for d in shared} for scores in (of_a, of_b))
        taus.append(kendall(np.array(list(a.values())), np.array(list(b.values()))))
        run_a, run_b = (rerank("r", {query: scores}).results[query] for scores in (a, b))
        overlaps.append(rbo(list(run_a), list(run_b)))
        documents += len(shared)
    return {
        "queries": len(overlaps),
        "documents": documents,
        "kendall": _mean(taus),
        "rbo": _mean(overlaps),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


@dataclass(frozen=True)
class Clash:
    """Teacher A ranks document `a` above `b`, teacher B `b` above `a`."""

    query: str
    a: str
    b: str
    strength: float  # the smaller lead, in standard deviations of the teacher's scores of the query


def disagreement(
    of_a: Scores, of_b: Scores, qrels: Mapping[str, Mapping[str, int]], most: int = 5
) -> dict[str, Any]:
    """Measure how often two teachers order a pair differently, and who is right.

    `judged` counts clashes between documents of different gain, `a_right` is the share of them in
    which A prefers the better document (None if there are no such pairs). Unjudged documents have
    gain 0. `worst` holds the strongest clash of each of `most` queries.

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
    both, scores = aligned([of_a, of_b])
    for query, at in both.slices():
        documents, (a, b) = list(both[query]), (z_scores(values[at]) for values in scores)
        lead_a, lead_b = a[:, None] - a, b - b[:, None]  # (N, N), of i by A, of j by B
        strengths = np.minimum(lead_a, lead_b)  # of a clash: above 0
        gains = np.array([max(qrels.get(query, {}).get(d, 0), 0) for d in documents])
        clash = strengths > 0
        better = np.sign(gains[:, None] - gains)[clash]
        pairs, apart = pairs + int(((lead_a > 0) & (lead_b != 0)).sum()), apart + int(clash.sum())
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
