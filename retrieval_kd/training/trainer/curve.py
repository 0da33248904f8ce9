"""The learning curve on a dev split: a small, fixed retrieval task measured during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.evaluation import BaseEvaluator

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.runs import Run
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.models.encode import encode_queries, finish, normalises
from retrieval_kd.models.vectors import maxsim_scores, sparse_rows, sparse_scores, token_rows

QUERIES, DOCUMENTS = 100, 500  # of a dev task, at most


@dataclass(frozen=True)
class DevTask:
    """Dev queries, their judgments, and the documents they are ranked among.

    The documents are the queries' relevant ones and the first stage's best: hard enough to tell
    students apart, few enough to encode every few dozen steps. nDCG@10 on them is higher than on
    the whole collection and is never reported as a result.
    """

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    document_ids: list[str]
    documents: list[str]

    def ndcg(self, scores: np.ndarray) -> float:
        """Return the mean nDCG@10 of scores (Q, P) of all queries and documents."""
        results = {
            query: dict(zip(self.document_ids, row.tolist(), strict=True))
            for query, row in zip(self.queries, scores, strict=True)
        }
        measured = evaluate(self.qrels, {"dev": Run("dev", results)}, ["ndcg@10"])
        return measured.mean("dev", "ndcg@10")


def build_dev_task(
    collection: Collection,
    texts: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    first_stage: Run,
) -> DevTask:
    """Take up to 100 of the queries `texts` (ID → text) and about 500 documents.

    All relevant documents are taken, so that there may be more.
    """
    chosen = sorted(texts)
    if len(chosen) > QUERIES:
        chosen = sorted(np.random.default_rng(0).choice(chosen, QUERIES, replace=False).tolist())
    judged = {q: dict(qrels[q]) for q in chosen}
    ids = {d: None for gains in judged.values() for d, gain in gains.items() if gain > 0}
    for rank in range(1000):
        if len(ids) >= DOCUMENTS:
            break
        for query in chosen:
            ranked = list(first_stage.results.get(query, {}))
            if rank < len(ranked) and len(ids) < DOCUMENTS:
                ids[ranked[rank]] = None
    listed = sorted(ids)
    documents = [collection.documents[id].full for id in listed]
    return DevTask({q: texts[q] for q in chosen}, judged, listed, documents)


class DevEvaluator(BaseEvaluator):
    """Measures nDCG@10 of the student on a `DevTask`; the trainer calls it every `eval_steps`."""

    def __init__(self, task: DevTask) -> None:
        super().__init__()
        self.task = task
        self.primary_metric = "dev_ndcg@10"

    def __call__(  # type: ignore[override]
        self,
        model: Any,
        output_path: str | None = None,
        epoch: float = -1,
        steps: int = -1,
    ) -> dict[str, float]:
        queries = list(self.task.queries.values())
        return {"dev_ndcg@10": self.task.ndcg(all_scores(model, queries, self.task.documents))}


def all_scores(model: Any, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """Score every query with every document, (Q, P), with a student of any kind."""
    if isinstance(model, SparseEncoder):
        words = sparse_rows(model, documents, "document")  # (P, V)
        return sparse_scores(sparse_rows(model, queries, "query"), words.T.tocsr())
    if isinstance(model, MultiVectorEncoder):
        tokens = token_rows(model, documents, "document")
        return maxsim_scores(token_rows(model, queries, "query"), tokens)
    normalise = normalises(model)
    vectors = model.encode_document(list(documents), show_progress_bar=False)
    return encode_queries(model, queries) @ finish(vectors, normalise).T


NOT_PLOTTED = {"step", "epoch", "grad_norm", "learning_rate", "total_flos"}


def curve_from_log(history: list[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Turn the trainer's log into points `{"step", "loss", "dev_ndcg@10", components…}` by step."""
    points: dict[int, dict[str, float]] = {}
    for entry in history:
        point = points.setdefault(int(entry["step"]), {"step": int(entry["step"])})
        for name, value in entry.items():
            if name not in NOT_PLOTTED and not name.startswith(("eval_", "train_")):
                point[name] = float(value)
        if "eval_dev_ndcg@10" in entry:
            point["dev_ndcg@10"] = float(entry["eval_dev_ndcg@10"])
    return [points[step] for step in sorted(points) if len(points[step]) > 1]
