"""The opened FAISS index of a dense model. How it is built is in `build.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.indexing.factory import set_parameters
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.models.encode import encode_queries, finish

FAISS = "index.faiss"
BLOCK = 1_024  # queries searched at a time


class FaissVectors:
    """Vectors of documents in a FAISS index of any factory string."""

    def __init__(self, folder: Path, manifest: dict[str, Any], search: str | None) -> None:
        self.index = faiss.read_index(str(folder / FAISS))
        self.dimensions, self.count = self.index.d, self.index.ntotal
        self.prompt, self.normalised = manifest["query_prompt"], manifest["normalised"]
        set_parameters(self.index, search or manifest["spec"]["search"], "search")

    def encode(self, model: Any, texts: Sequence[str]) -> np.ndarray:
        """Query vectors `(len(texts), dimensions)`."""
        whole = encode_queries(model, texts, prompt=self.prompt)
        return finish(whole[:, : self.dimensions], self.normalised)

    def search(self, queries: np.ndarray, depth: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each query the positions and scores that FAISS finds, at most `depth`."""
        found = []
        for start in range(0, len(queries), BLOCK):
            scores, positions = self.index.search(queries[start : start + BLOCK], depth)
            for row, at in zip(scores, positions, strict=True):
                found.append((at[at >= 0], row[at >= 0]))
        return found
