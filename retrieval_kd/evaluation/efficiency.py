"""Costs of first-stage systems: parameters, bytes per document, throughput, latency.

Fields are named as in `report.data.SystemRow`. Unknown costs are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.data.collection import Collection
from retrieval_kd.evaluation.systems import kind_of
from retrieval_kd.files import cache_dir, read_json
from retrieval_kd.indexing.index import MANIFEST, Index
from retrieval_kd.retrieval.bm25 import BM25, DEFAULT, LUCENE, BM25Parameters, for_language
from retrieval_kd.retrieval.retrieve import cached_index

TIMED_QUERIES = 50
SearchFunction = Callable[[str], object]


def prepare(
    system: str,
    collection: Collection,
    *,
    language: str | None = None,
    max_length: int | None = None,
) -> dict[str, Any]:
    """Build the system's index of the collection in the shared cache, and return its costs.

    `documents_per_second` is measured if the whole index is built now; if it existed, or an earlier
    process had begun it, `index` is "cached".
    """
    kind = kind_of(system)
    if kind == "bm25":
        before, start = _cached("bm25"), time.perf_counter()
        index = BM25.open(collection.documents, _parameters(system, language))
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in index.folder.rglob("*") if file.is_file())
        return {"kind": "lexical"} | _costs(collection, size, index.folder.name in before, seconds)
    if kind == "dense":
        return _prepare_model(system, collection, max_length)
    if kind == "fusion":
        names = map(str.strip, system.split("+"))
        settings: dict[str, Any] = {"language": language, "max_length": max_length}
        return {"kind": "fusion"} | _sum_costs([prepare(n, collection, **settings) for n in names])
    return {"kind": "lexical"}


def _prepare_model(system: str, collection: Collection, max_length: int | None) -> dict[str, Any]:
    """Cache what a search with the model needs: a dense one's vectors, another's index."""
    from retrieval_kd.models.encode import document_vectors
    from retrieval_kd.models.load import kind_of as kind_of_model
    from retrieval_kd.students.dense import describe_student

    kind = kind_of_model(system)
    before = _cached("vectors" if kind == "dense" else "indexes")
    if kind == "dense":
        model, start = _encoder(system, max_length), time.perf_counter()
        vectors = document_vectors(system, collection.documents, max_length=max_length, model=model)
        seconds = time.perf_counter() - start
        folder, size = Path(str(vectors.filename)).parent, int(vectors.nbytes)
    else:
        index = cached_index(collection, system, kind, max_length=max_length)
        model, folder = index.model, index.folder
        seconds = index.manifest["seconds"]["encode"]  # without loading the model, as above
        size = sum(int(file["bytes"]) for file in index.manifest["files"].values())
    facts = describe_student(model)
    return {
        "kind": kind,
        **{name: facts[name] for name in ("layers", "parameters", "dimensions")},
        "document_tokens": model.max_seq_length,
        **_costs(collection, size, folder.name in before, seconds),
    }


def measure_latency(
    systems: Sequence[str],
    collection: Collection,
    queries: Sequence[str],
    *,
    depth: int,
    language: str | None = None,
    max_length: int | None = None,
) -> dict[str, dict[str, float]]:
    """Measure p50 and p95 (ms) of one query at a time, and queries per second, on a sample.

    All systems answer each query in turn. A dense system encodes the query and compares it exactly
    with every document; a fusion runs its parts one after the other, without fusing their results.
    """
    step = max(1, len(queries) // TIMED_QUERIES)
    answers = {
        system: answer
        for system in systems
        if (answer := _answer(system, collection, depth, language, max_length)) is not None
    }
    return latencies(answers, list(queries)[::step][:TIMED_QUERIES]) if answers else {}


def _answer(
    system: str, collection: Collection, depth: int, language: str | None, max_length: int | None
) -> SearchFunction | None:
    """Return what answers a query with the system; None if it cannot be timed."""
    kind = kind_of(system)
    if kind == "bm25":
        index = BM25.open(collection.documents, _parameters(system, language))
        return partial(index.search, depth=depth)
    if kind == "dense":
        return _model_answer(system, collection, depth, max_length)
    if kind == "fusion":
        names = map(str.strip, system.split("+"))
        parts = [_answer(name, collection, depth, language, max_length) for name in names]
        timed = [part for part in parts if part is not None]
        return (lambda query: [part(query) for part in timed]) if len(timed) == len(parts) else None
    return None


def _model_answer(
    system: str, collection: Collection, depth: int, max_length: int | None
) -> SearchFunction:
    from retrieval_kd.indexing.faiss_import import faiss
    from retrieval_kd.models.encode import document_vectors, encode_queries
    from retrieval_kd.models.load import kind_of as kind_of_model

    if (kind := kind_of_model(system)) != "dense":
        index = cached_index(collection, system, kind, max_length=max_length)
        return lambda query: index.search_run({"query": query}, depth)
    model = _encoder(system, max_length)
    mapped = document_vectors(system, collection.documents, max_length=max_length, model=model)
    vectors, k = np.asarray(mapped), min(depth, len(mapped))

    def answer(query: str) -> object:
        encoded = encode_queries(model, [query])
        return faiss.knn(encoded, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)

    return answer


@lru_cache(maxsize=2)
def _encoder(system: str, max_length: int | None) -> Any:
    """Load a model once, although a suite uses the same few models on every collection."""
    from retrieval_kd.models.load import load_encoder

    return load_encoder(system, max_length=max_length)


def _parameters(system: str, language: str | None) -> BM25Parameters:
    parameters = DEFAULT if system == "bm25" else LUCENE
    return parameters if language is None else for_language(language, parameters)


def _cached(kind: str) -> set[str]:
    """List the shared cache's folders of a kind, finished or begun."""
    return {path.name for path in (cache_dir() / kind).glob("*")}


def timed_build(build: Callable[[], Index], folder: Path) -> tuple[Index, float | None]:
    """Build an index, and return it and how many documents per second were encoded for it.

    The speed is None if the index or its vectors existed, or an earlier process had begun them.
    """
    from retrieval_kd.models.modules.adapter import AdapterEncoder
    from retrieval_kd.models.modules.asymmetric import document_side
    from retrieval_kd.models.modules.residual import ResidualEncoder

    manifest, before = folder / MANIFEST, _cached("vectors")
    stamp = manifest.stat().st_mtime_ns if manifest.exists() else 0
    begun = any(folder.glob(".shards-*"))
    index = build()
    made = index.manifest
    fresh = manifest.stat().st_mtime_ns != stamp and not begun
    if fresh and made["spec"].get("kind", "faiss") == "faiss":
        fresh = any(_is_source(name, made) for name in _cached("vectors") - before)
    # Of these students the encoder's vectors are cached.
    frozen = isinstance(document_side(index.model), ResidualEncoder | AdapterEncoder)
    fresh = fresh and not frozen
    return index, documents_per_second(len(index), made["seconds"]["encode"]) if fresh else None


def _is_source(name: str, index: dict[str, Any]) -> bool:
    """Whether an index was built from these cached vectors."""
    path = cache_dir() / "vectors" / name / MANIFEST
    vectors = read_json(path) if path.exists() else {}
    keys = {"model_digest": "model_digest", "texts_digest": "documents_digest", "dtype": "dtype"}
    return all(vectors.get(key) == index[index_key] for key, index_key in keys.items())


def documents_per_second(document_count: int, seconds: float) -> float | None:
    """Return documents per second; None if the time is too short to measure.

    Example:
        >>> documents_per_second(5183, 30.0), documents_per_second(5183, 0.0)
        (172.8, None)
    """
    return round(document_count / seconds, 1) if seconds > 0 else None


def _costs(collection: Collection, size: int, cached: bool, seconds: float) -> dict[str, Any]:
    document_count = len(collection.documents)
    return {
        "index_bytes": size,
        "bytes_per_document": round(size / max(1, document_count), 1),
        "index": "cached" if cached else "made now",
        "documents_per_second": None if cached else documents_per_second(document_count, seconds),
    }


def _sum_costs(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the models and indexes of a fusion's parts."""
    facts: dict[str, Any] = {}
    for key in ("parameters", "index_bytes", "bytes_per_document"):
        values = [part[key] for part in parts if part.get(key) is not None]
        if values:
            facts[key] = round(sum(values), 1)
    return facts


def latencies(
    systems: Mapping[str, Callable[[str], object]], queries: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measure median and 95th percentile of milliseconds per query, and queries per second.

    Queries are answered one at a time; the first is answered once before anything is timed.

    Example:
        >>> timed = latencies({"fast": len, "slow": lambda query: time.sleep(0.002)}, ["a", "b"])
        >>> timed["slow"]["latency_ms_p50"] > timed["fast"]["latency_ms_p50"]
        True
    """
    milliseconds: dict[str, list[float]] = {name: [] for name in systems}
    for turn, query in enumerate([*queries[:1], *queries]):
        for name, answer in systems.items():
            start = time.perf_counter()
            answer(query)
            if turn:
                milliseconds[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {
            "latency_ms_p50": round(float(np.median(times)), 3),
            "latency_ms_p95": round(float(np.quantile(times, 0.95)), 3),
            "queries_per_second": round(1000 / float(np.mean(times)), 1),
        }
        for name, times in milliseconds.items()
    }
