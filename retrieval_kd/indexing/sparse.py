"""The exact index of a sparse model: for each word, the documents that have it and their weights.

Its three files are the arrays of a SciPy CSR matrix `(V, n)`; a query reads only its own words'
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack

from retrieval_kd.data.texts import Texts
from retrieval_kd.indexing.segments import Layout
from retrieval_kd.models.encode import Shard, encode_shards, read_arrays, save_array
from retrieval_kd.models.vectors import sparse_rows, sparse_scores, sparse_width

FILES = ("starts.npy", "documents.npy", "weights.npy")
CELLS = 2**26  # scores in memory at a time


def write(model: Any, texts: Texts, out: Path, prompt: str | None, inputs: Any) -> dict[str, Any]:
    """Encode all documents and write the index. Returns manifest entries."""
    width = sparse_width(model)
    paths = encode_shards(encoder(model, prompt), texts, out, inputs)
    weights = vstack([matrix(read_arrays(path), width) for path in paths])
    save(weights, out)
    return {
        "metric": "dot",
        "dimensions": width,
        "words_per_document": round(weights.nnz / len(texts), 1),
    }


def encoder(model: Any, prompt: str | None) -> Callable[[list[str], int], Shard]:
    """Return what encodes documents for `encode_shards`."""

    def encode(documents: list[str], start: int) -> Shard:
        rows = sparse_rows(model, documents, "document", prompt=prompt)
        return {
            "lengths": np.diff(rows.indptr).astype(np.int32),
            "words": rows.indices.astype(np.int32),
            "weights": rows.data,
        }

    return encode


def matrix(shard: Shard, width: int) -> csr_matrix:
    """A shard's documents as word weights `(n, V)`."""
    starts = np.cumsum([0, *shard["lengths"]])
    shape = (len(shard["lengths"]), width)
    return csr_matrix((shard["weights"], shard["words"], starts), shape=shape)


def save(weights: csr_matrix, out: Path) -> None:
    """Write the index of word weights `(n, V)`."""
    postings = weights.T.tocsr()  # (V, n)
    postings.sort_indices()
    arrays = (postings.indptr.astype(np.int64), postings.indices.astype(np.int32), postings.data)
    for name, array in zip(FILES, arrays, strict=True):
        save_array(out / name, array)


class SparseVectors:
    """The opened index; its arrays are mapped from disk."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        starts, documents, weights = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in FILES
        )
        self.prompt = manifest["query_prompt"]
        self.dimensions, self.count = len(starts) - 1, Layout.of(manifest).rows
        shape = (self.dimensions, self.count)
        self.postings = [csr_matrix((weights, documents, starts), shape=shape, copy=False)]
        self.deleted = np.zeros(0, np.int64)

    def extend(self, shard: Shard) -> None:
        """Append documents."""
        added = matrix(shard, self.dimensions)
        self.postings.append(added.T.tocsr())
        self.count += added.shape[0]

    def hide(self, deleted: np.ndarray) -> None:
        """Leave these rows out of all results."""
        self.deleted = deleted

    def rewrite(self, live: np.ndarray, out: Path) -> None:
        """Write the index of the rows that are `live`."""
        save(vstack([part.T.tocsr() for part in self.postings], format="csr")[live], out)

    def encode(self, model: Any, texts: Sequence[str]) -> csr_matrix:
        """Query weights `(Q, V)`."""
        return sparse_rows(model, texts, "query", prompt=self.prompt)

    def search(self, queries: csr_matrix, depth: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return positions and scores of the documents that share a word with each query."""
        results = []
        block = max(1, CELLS // max(1, self.count))
        for start in range(0, queries.shape[0], block):
            parts = [sparse_scores(queries[start : start + block], p) for p in self.postings]
            for scores in np.concatenate(parts, axis=1):
                scores[self.deleted] = 0
                positions = np.flatnonzero(scores)
                results.append((positions, scores[positions]))
        return results
