"""Measures how well a small decoder ranks with each kind of teacher, against random orders."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from retrieval_kd import Collection, Run, ScoreStore, evaluate, open_teacher
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.teachers.score import score, scores_of

MEASURE = "ndcg@10"
TEACHERS = {
    "yes/no": "yesno:{model}?passage_tokens={tokens}",
    "query likelihood": "likelihood:{model}?passage_tokens={tokens}",
    "pairs, both orders": "pairwise:{model}?passage_tokens={tokens}",
    "lists": "listwise:{model}?window=4&stride=2&passage_tokens={tokens}",
    "lists by first logits": "listwise:{model}?answer=logits&window=4&stride=2"
    "&passage_tokens={tokens}",
}
TASK_OF = {  # the training task of each kind of teacher
    "yes/no": "yes/no",
    "query likelihood": "likelihood",
    "pairs, both orders": "pair",
    "lists": "order",
    "lists by first logits": "first",
}


def measured(
    folder: Path,
    collections: Sequence[Collection],
    queries: int,
    *,
    seed: int,
    depth: int = 8,
    tokens: int = 96,
    teachers: Mapping[str, str] = TEACHERS,
) -> dict[str, Any]:
    """Measure nDCG@10 of re-ranking `depth` shuffled candidates of test queries.

    Candidates are the relevant documents and BM25's first other documents. Chance is the mean over
    random orders of the same candidates.
    """
    results: dict[str, Any] = {}
    for collection in collections:
        candidates = candidates_of(collection, queries, depth, seed)
        texts, qrels = collection.query_texts("test"), collection.qrels("test")
        judged = {query: qrels[query] for query in candidates}
        chance = chance_of(judged, candidates, seed)
        name = Path(collection.spec).stem
        results[name] = {"queries": len(candidates), "chance": round(float(chance.mean()), 4)}
        for way, spec in teachers.items():
            with tempfile.TemporaryDirectory() as store:
                teacher = open_teacher(spec.format(model=folder, tokens=tokens), collection)
                score(collection, texts, candidates, teacher, ScoreStore(store))
                scores = scores_of(collection, texts, candidates, ScoreStore(store), teacher.key)
            run = Run(way, {query: scores.get(query, {}) for query in candidates})
            values = evaluate(judged, [run], [MEASURE]).per_query[way][MEASURE]
            own = np.array([values[query] for query in judged])
            usage = teacher.model.usage  # type: ignore[union-attr]
            results[name][way] = {
                MEASURE: round(float(own.mean()), 4),
                "p against chance": float(ttest_1samp(own - chance, 0).pvalue),
                "documents ranked": sum(map(len, scores.values())),
                "calls": usage.calls,
                "tokens": usage.prompt_tokens + usage.answer_tokens,
                "seconds": round(usage.seconds, 1),
            }
            print(name, way, results[name][way], "chance", results[name]["chance"], flush=True)
    return results


def candidates_of(collection: Collection, most: int, depth: int, seed: int) -> dict[str, list[str]]:
    """Draw test queries, each with its relevant documents and BM25's first others, shuffled."""
    rng = np.random.default_rng(seed)
    texts, qrels = collection.query_texts("test"), collection.qrels("test")
    drawn = sorted(rng.permutation(sorted(texts))[:most].tolist())
    run = bm25_run(collection, {query: texts[query] for query in drawn}, 2 * depth)
    candidates = {}
    for query in drawn:
        right = [d for d, gain in qrels[query].items() if gain > 0][: depth // 2]
        others = [d for d in run.results.get(query, {}) if d not in qrels[query]]
        documents = [*right, *others][:depth]
        candidates[query] = [documents[i] for i in rng.permutation(len(documents))]
    return candidates


def chance_of(
    judged: Mapping[str, Mapping[str, int]], candidates: Mapping[str, Sequence[str]], seed: int
) -> np.ndarray:
    """Each query's mean nDCG@10 over 50 random orders of its candidates: `(queries,)`."""
    rng = np.random.default_rng(seed)
    runs = [
        Run(
            str(i),
            {q: dict(zip(ids, rng.random(len(ids)), strict=True)) for q, ids in candidates.items()},
        )
        for i in range(50)
    ]
    evaluation = evaluate(judged, runs, [MEASURE])
    orders = [[evaluation.per_query[run.name][MEASURE][q] for q in judged] for run in runs]
    return np.mean(orders, axis=0)
