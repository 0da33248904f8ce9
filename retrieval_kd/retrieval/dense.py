"""Exact dense retrieval: compares every query vector with every document vector, in chunks.

FAISS finds candidates in float32; they are then scored in float64. So a score does not depend on a
document's position: equal vectors tie, and a pair has the same score alone and in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_kd.data.runs import Run
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.topk import Ranking, top_k
from retrieval_kd.models.encode import document_vectors, encode_queries
from retrieval_kd.models.load import load_encoder
from retrieval_kd.progress import bar
from retrieval_kd.retrieval.bm25 import locate

if TYPE_CHECKING:
    from retrieval_kd.data.collection import Collection

CHUNK = 65_536  # documents at a time: 100 MB at 384 dimensions
QUERIES = 1_024  # queries at a time
SPARE = 16  # extra candidates, so that float32 rounding cannot lose a document
TOLERANCE = 1e-5  # rounding error of float32 scores, relative to the largest score


def dense_run(
    collection: Collection,
    queries: Mapping[str, str],
    model_spec: str,
    depth: int = 100,
    *,
    max_length: int | None = None,
    exclude_self: bool = True,
    name: str | None = None,
) -> Run:
    """Rank all documents by their vectors' inner product with each query's (ID → text).

    Vectors of cosine models have unit length. Document vectors come from the shared cache, or are
    encoded into it.
    """
    model = load_encoder(model_spec, max_length=max_length)
    texts = collection.documents
    vectors = document_vectors(model_spec, texts, max_length=max_length, model=model)
    ids = list(queries)
    encoded = encode_queries(model, [queries[id] for id in ids])
    own = ids if exclude_self else [None] * len(ids)
    rankings = search_vectors(encoded, vectors, depth, texts.id_at, exclude=own)
    return Run(name or model_spec, dict(zip(ids, rankings, strict=True)))


def dense_scores(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    model_spec: str,
    *,
    max_length: int | None = None,
) -> dict[str, dict[str, float]]:
    """Score given documents exactly as `dense_run` does: query ID → document ID → score.

    Raises:
        InputError: a candidate is not in the collection, or its query has no text.
    """
    model, texts = load_encoder(model_spec, max_length=max_length), collection.documents
    located = {id: locate(texts, queries, id, ids) for id, ids in candidates.items()}
    vectors = document_vectors(model_spec, texts, max_length=max_length, model=model)
    encoded = encode_queries(model, [text for text, _ in located.values()])
    results = {}
    for query, (query_id, (_, positions)) in zip(encoded, located.items(), strict=True):
        scores = inner_products(query, vectors[positions])
        results[query_id] = dict(zip(candidates[query_id], scores.tolist(), strict=True))
    return results


def search_vectors(
    queries: np.ndarray,
    vectors: np.ndarray,
    depth: int,
    id_at: Callable[[int], str],
    *,
    exclude: Sequence[str | None] | None = None,
) -> list[Ranking]:
    """Return the `depth` highest inner products for each query, in the order of `ranked`.

    Args:
        vectors: `(documents, d)` float32, memory-mapped or not; a chunk is read at a time.
        exclude: for each query, a document ID to leave out.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
        >>> search_vectors(vectors[:1], vectors, 2, "zba".__getitem__)
        [{'z': 1.0, 'a': 1.0}]
    """
    exclude = exclude or [None] * len(queries)
    rankings: list[Ranking] = []
    with bar("searching", len(queries)) as progress:
        for start in range(0, len(queries), QUERIES):
            block = queries[start : start + QUERIES]
            approximate, positions = _candidates(block, vectors, depth + 1 + SPARE)
            for i, query in enumerate(block):
                close, own = (approximate[i], positions[i]), exclude[start + i]
                rankings.append(_ranking(query, vectors, depth, id_at, *close, own))
            progress.advance(len(block))
    return rankings


def inner_products(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Multiply `query (d,)` with each of `vectors (n, d)` in float64. Returns float32 `(n,)`."""
    products = vectors.astype(np.float64) * query.astype(np.float64)
    return products.sum(axis=1).astype(np.float32)


def _candidates(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 scores and positions, both `(queries, min(k, documents))`, best first."""
    k = min(k, len(vectors))
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    for start in range(0, len(vectors), CHUNK):
        chunk = np.ascontiguousarray(vectors[start : start + CHUNK])
        scores, positions = faiss.knn(
            queries, chunk, min(k, len(chunk)), metric=faiss.METRIC_INNER_PRODUCT
        )
        best.add_result(scores, positions + start)
    best.finalize()
    return best.D, best.I


def _ranking(
    query: np.ndarray,
    vectors: np.ndarray,
    depth: int,
    id_at: Callable[[int], str],
    approximate: np.ndarray,
    positions: np.ndarray,
    exclude: str | None,
) -> Ranking:
    exact = inner_products(query, vectors[positions])  # (candidates,)
    if len(positions) < len(vectors):
        # at `depth`, not `depth - 1`, because `exclude` may be among them
        last_kept = np.sort(exact)[::-1][depth]
        if approximate[-1] >= last_kept - TOLERANCE * max(1.0, float(np.abs(exact).max())):
            # Documents beyond the candidates may tie with them: many copies, or a constant model.
            starts = range(0, len(vectors), CHUNK)
            parts = [inner_products(query, vectors[start : start + CHUNK]) for start in starts]
            exact = np.concatenate(parts)
            positions = np.arange(len(vectors))
    return top_k(exact, depth, id_at, positions=positions, exclude=exclude)
