"""Distil rerankers into retrieval models. `docs/architecture.md` says what lives where.

The public names; each is imported on first use, so that `import retrieval_kd` itself is fast:

    >>> from retrieval_kd import evaluate, open_collection, retrieve
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Name → the module that defines it.
_PUBLIC = {
    "Collection": "data.collection",
    "open_collection": "data.collection",
    "Run": "data.runs",
    "read_run": "data.runs",
    "write_run": "data.runs",
    "Drops": "errors",
    "InputError": "errors",
    "retrieve": "retrieval.retrieve",
    "ScoreStore": "store.scores",
    "open_teacher": "teachers.spec",
    "score": "teachers.score",
    "scores_of": "teachers.score",
    "Pool": "training.batches.slates",
    "build_pools": "training.batches.pools",
    "parse_terms": "training.objective.terms",
    "TrainSettings": "training.trainer.settings",
    "make_student": "students.make",
    "TrainingJob": "training.job",
    "train_student": "training.train_student",
    "Index": "indexing.index",
    "Shards": "indexing.shards",
    "build_index": "indexing.build",
    "index_vectors": "indexing.from_vectors",
    "add_documents": "indexing.change",
    "delete_documents": "indexing.change",
    "compact_index": "indexing.change",
    "HybridIndex": "retrieval.hybrid",
    "combine_indexes": "retrieval.combine",
    "evaluate": "metrics.measures",
    "compare": "metrics.significance",
    "load_config": "config.run",
    "run": "pipeline.plan",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'retrieval_kd' has no attribute {name!r}")
    value = getattr(import_module(f"retrieval_kd.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
