"""The exact index of a sparse model: for each word, the documents that have it and their weights.

Its three files are the arrays of a SciPy CSR matrix `(V, n)`; a query reads only its own words'
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack

from retrieval_kd.data.texts import Texts
from retrieval_kd.models.encode import Shard, encode_shards, read_arrays, save_array
from retrieval_kd.models.vectors import sparse_rows, sparse_scores

FILES = ("starts.npy", "documents.npy", "weights.npy")
CELLS = 2**26  # scores in memory at a time


def write(model: Any, texts: Texts, out: Path, prompt: str | None, inputs: Any) -> dict[str, Any]:
    """Encode all documents and write the index. Returns manifest entries."""

    def encode(documents: list[str], start: int) -> Shard:
        rows = sparse_rows(model, documents, "document", prompt=prompt)
        return {
            "lengths": np.diff(rows.indptr).astype(np.int32),
            "words": rows.indices.astype(np.int32),
            "weights": rows.data,
        }

    width = model.get_embedding_dimension()
    parts = [
        csr_matrix(
            (shard["weights"], shard["words"], np.cumsum([0, *shard["lengths"]])),
            shape=(len(shard["lengths"]), width),
        )
        for shard in map(read_arrays, encode_shards(encode, texts, out, inputs))
    ]
    postings = vstack(parts).T.tocsr()  # (V, n)
    postings.sort_indices()
    arrays = (postings.indptr.astype(np.int64), postings.indices.astype(np.int32), postings.data)
    for name, array in zip(FILES, arrays, strict=True):
        save_array(out / name, array)
    return {
        "metric": "dot",
        "dimensions": width,
        "words_per_document": round(postings.nnz / len(texts), 1),
    }


class SparseVectors:
    """The opened index; its arrays are mapped from disk."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        starts, documents, weights = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in FILES
        )
        self.prompt = manifest["query_prompt"]
        self.dimensions, self.count = len(starts) - 1, int(manifest["count"])
        self.postings = csr_matrix(
            (weights, documents, starts), shape=(self.dimensions, self.count), copy=False
        )

    def encode(self, model: Any, texts: Sequence[str]) -> csr_matrix:
        """Query weights `(Q, V)`."""
        return sparse_rows(model, texts, "query", prompt=self.prompt)

    def search(self, queries: csr_matrix, depth: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return positions and scores of the documents that share a word with each query."""
        results = []
        block = max(1, CELLS // max(1, self.count))
        for start in range(0, queries.shape[0], block):
            for scores in sparse_scores(queries[start : start + block], self.postings):
                positions = np.flatnonzero(scores)
                results.append((positions, scores[positions]))
        return results
