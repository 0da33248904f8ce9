"""What `rkd run` times side by side: BM25, the teacher, the encoder, a student of each name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from retrieval_kd.indexing.index import Index
from retrieval_kd.pipeline.rerank import Reranker
from retrieval_kd.retrieval.bm25 import BM25, DEFAULT
from retrieval_kd.students.options import RE_RANKS

if TYPE_CHECKING:
    from retrieval_kd.pipeline.stages import Stages

TIMED_QUERIES = 40


def timed_systems(stages: Stages) -> tuple[dict[str, Callable[[str], object]], list[str]]:
    """How each system answers a query's text, and the test queries that are asked.

    The teacher and cross-encoder students re-rank the first stage's candidates, which they are
    given.
    """
    config, test = stages.config, stages.queries("test")
    chosen = sorted(test.texts)[:TIMED_QUERIES]
    found = stages.candidates("test")
    candidates = {test.texts[query]: found.get(query, {}) for query in chosen}
    bm25 = BM25.open(stages.collection.documents, DEFAULT)
    systems: dict[str, Callable[[str], object]] = {
        "bm25": lambda text: bm25.search(text, config.depth),
        "teacher": lambda text: stages.ensemble.answer(text, candidates[text]),
    }
    index = Index.open(stages.work.path("indexes", "encoder"))
    systems["encoder"] = partial(_search, index, config.depth)
    for name, student in config.systems.items():
        training, folder = config.students[student], f"{name}-seed{config.seeds[0]}"
        if config.student_of(training).kind in RE_RANKS:
            model, length = str(stages.work.path("students", folder)), config.student.max_length
            reranker = Reranker(stages.collection, model, max_length=length)
            systems[name] = partial(_rerank, reranker, candidates)
        else:
            index = Index.open(stages.work.path("indexes", folder))
            systems[name] = partial(_search, index, config.depth)
    return systems, list(candidates)


def _search(index: Index, depth: int, text: str) -> object:
    return index.search([text], depth)


def _rerank(reranker: Reranker, candidates: dict[str, dict[str, float]], text: str) -> object:
    return reranker.scores({text: text}, {text: candidates[text]})
