"""How well a small decoder ranks, asked in every way, against chance on the same candidates."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import Run
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.retrieval.bm25 import bm25_run
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.open import open_teacher
from retrieval_kd.teachers.score import score, scores_of

MEASURE = "ndcg@10"
ASKED = {
    "yes/no": "yesno:{model}?passage_tokens={tokens}",
    "query likelihood": "likelihood:{model}?passage_tokens={tokens}",
    "pairs, both orders": "pairwise:{model}?passage_tokens={tokens}",
    "lists": "listwise:{model}?window=4&stride=2&passage_tokens={tokens}",
    "lists by first logits": "listwise:{model}?answer=logits&window=4&stride=2"
    "&passage_tokens={tokens}",
}
TASK_OF = {  # which lessons teach it to be asked so
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
    asked: Mapping[str, str] = ASKED,
) -> dict[str, Any]:
    """nDCG@10 of re-ranking `depth` shuffled candidates of test queries: what is relevant and
    BM25's first others. Chance is the mean over random orders of the same candidates."""
    found: dict[str, Any] = {}
    for collection in collections:
        wanted = candidates_of(collection, queries, depth, seed)
        texts, qrels = collection.query_texts("test"), collection.qrels("test")
        judged = {query: qrels[query] for query in wanted}
        chance = chance_of(judged, wanted, seed)
        name = Path(collection.spec).stem
        found[name] = {"queries": len(wanted), "chance": round(float(chance.mean()), 4)}
        for way, spec in asked.items():
            with tempfile.TemporaryDirectory() as store:
                teacher = open_teacher(spec.format(model=folder, tokens=tokens), collection)
                score(collection, texts, wanted, teacher, ScoreStore(store))
                scores = scores_of(collection, texts, wanted, ScoreStore(store), teacher.key)
            run = Run(way, {query: scores.get(query, {}) for query in wanted})
            values = evaluate(judged, [run], [MEASURE]).per_query[way][MEASURE]
            own = np.array([values[query] for query in judged])
            usage = teacher.model.usage  # type: ignore[union-attr]
            found[name][way] = {
                MEASURE: round(float(own.mean()), 4),
                "p against chance": float(ttest_1samp(own - chance, 0).pvalue),
                "documents ranked": sum(map(len, scores.values())),
                "calls": usage.calls,
                "tokens": usage.prompt_tokens + usage.answer_tokens,
                "seconds": round(usage.seconds, 1),
            }
            print(name, way, found[name][way], "chance", found[name]["chance"], flush=True)
    return found


def candidates_of(collection: Collection, most: int, depth: int, seed: int) -> dict[str, list[str]]:
    """Test queries drawn by `seed`, each with its relevant documents and BM25's, shuffled."""
    rng = np.random.default_rng(seed)
    texts, qrels = collection.query_texts("test"), collection.qrels("test")
    drawn = sorted(rng.permutation(sorted(texts))[:most].tolist())
    run = bm25_run(collection, {query: texts[query] for query in drawn}, 2 * depth)
    wanted = {}
    for query in drawn:
        right = [d for d, gain in qrels[query].items() if gain > 0][: depth // 2]
        others = [d for d in run.results.get(query, {}) if d not in qrels[query]]
        documents = [*right, *others][:depth]
        wanted[query] = [documents[i] for i in rng.permutation(len(documents))]
    return wanted


def chance_of(
    judged: Mapping[str, Mapping[str, int]], wanted: Mapping[str, Sequence[str]], seed: int
) -> np.ndarray:
    """Each query's mean over 50 random orders of its candidates, (queries,)."""
    rng = np.random.default_rng(seed)
    runs = [
        Run(
            str(i),
            {q: dict(zip(ids, rng.random(len(ids)), strict=True)) for q, ids in wanted.items()},
        )
        for i in range(50)
    ]
    found = evaluate(judged, runs, [MEASURE])
    orders = [[found.per_query[run.name][MEASURE][q] for q in judged] for run in runs]
    return np.mean(orders, axis=0)
