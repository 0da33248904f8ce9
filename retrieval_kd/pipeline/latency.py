"""Latency, measured side by side: BM25, the teacher, the encoder, one student of each name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from retrieval_kd.evaluation.latency import latencies
from retrieval_kd.indexing.index import Index
from retrieval_kd.pipeline.context import RunContext, seeded
from retrieval_kd.pipeline.rerank import Reranker
from retrieval_kd.retrieval.bm25 import BM25, DEFAULT
from retrieval_kd.students.options import RE_RANKS

TIMED_QUERIES = 40


def measure_latency(context: RunContext) -> dict[str, Any]:
    """Measure the latency of each system on some test queries, those of one seed for students.

    The teacher and cross-encoder students re-rank the first stage's candidates; the time of the
    first stage is not included.
    """
    config, test = context.config, context.queries("test")
    chosen = sorted(test.texts)[:TIMED_QUERIES]
    by_query = context.candidates("test")
    candidates = {test.texts[query]: by_query.get(query, {}) for query in chosen}
    bm25 = BM25.open(context.collection.documents, DEFAULT)
    systems: dict[str, Callable[[str], object]] = {
        "bm25": lambda text: bm25.search(text, config.depth),
        "teacher": lambda text: context.ensemble.answer(text, candidates[text]),
    }
    index = Index.open(context.work.path("indexes", "encoder"))
    systems["encoder"] = partial(_search, index, config.depth)
    for name, student in config.systems.items():
        training, folder = config.students[student], seeded(name, config.seeds[0])
        if config.student_for(training).kind in RE_RANKS:
            model, length = str(context.work.path("students", folder)), config.student.max_length
            reranker = Reranker(context.collection, model, max_length=length)
            systems[name] = partial(_rerank, reranker, candidates)
        else:
            index = Index.open(context.work.path("indexes", folder))
            systems[name] = partial(_search, index, config.depth)
    return latencies(systems, list(candidates))


def _search(index: Index, depth: int, text: str) -> object:
    return index.search([text], depth)


def _rerank(reranker: Reranker, candidates: dict[str, dict[str, float]], text: str) -> object:
    return reranker.scores({text: text}, {text: candidates[text]})
