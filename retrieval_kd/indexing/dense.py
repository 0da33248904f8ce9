"""The FAISS index of a dense model, of any factory string: written once, then opened and searched.

An empty index is made in `factory.py`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_path
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.indexing.factory import faiss_threads, make_index, set_parameters
from retrieval_kd.indexing.faiss_import import faiss
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models.encode import document_vectors, encode_queries, finish, normalises
from retrieval_kd.progress import bar

FAISS = "index.faiss"
FILES = (FAISS,)
CHUNK = 65_536  # documents added at a time
BLOCK = 1_024  # queries searched at a time


def write(
    model: Any, model_spec: str, texts: Texts, spec: IndexSpec, out: Path, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Encode all documents, train the index, add them and write it. Returns manifest entries.

    Raises:
        InputError: the specification does not fit the model or the number of documents.
    """
    normalised = _normalised(spec, normalises(model))
    dimensions = _dimensions(spec, model.get_embedding_dimension(), model_spec)
    index = make_index(spec, dimensions, len(texts))
    start = time.monotonic()
    vectors = document_vectors(
        model_spec,
        texts,
        max_length=inputs["max_length"],
        dtype=fast_dtype(),
        prompt=inputs["document_prompt"],
        model=model,
    )[:, :dimensions]
    encoded = time.monotonic()
    with faiss_threads(spec.threads):
        trained_on = _train(index, spec, vectors, normalised)
        trained = time.monotonic()
        _add(index, vectors, normalised)
    added = time.monotonic()
    with atomic_path(out / FAISS) as temporary:
        faiss.write_index(index, str(temporary))
    return {
        "metric": "cosine" if normalised else "dot",
        "normalised": normalised,
        "dimensions": dimensions,
        "trained_on": trained_on,
        "seconds": {
            "encode": round(encoded - start, 3),
            "train": round(trained - encoded, 3),
            "add": round(added - trained, 3),
        },
    }


class FaissVectors:
    """The opened index."""

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
        """Return the positions and scores that FAISS finds for each query, at most `depth`."""
        results = []
        for start in range(0, len(queries), BLOCK):
            scores, positions = self.index.search(queries[start : start + BLOCK], depth)
            for row, at in zip(scores, positions, strict=True):
                results.append((at[at >= 0], row[at >= 0]))
        return results


def _normalised(spec: IndexSpec, model_normalises: bool) -> bool:
    if spec.metric == "dot" and model_normalises:
        raise InputError(
            "metric dot does not fit: the model's own similarity is cosine",
            remedy="use metric: auto",
        )
    return model_normalises or spec.metric == "cosine"


def _dimensions(spec: IndexSpec, whole: int, model_spec: str) -> int:
    """How many of the model's dimensions are indexed."""
    if spec.dimensions is not None and spec.dimensions > whole:
        raise InputError(
            f"the specification indexes {spec.dimensions} dimensions, but the vectors of "
            f"{model_spec} have {whole}",
            remedy=f"give at most {whole}",
        )
    return spec.dimensions or whole


def _train(index: Any, spec: IndexSpec, vectors: np.ndarray, normalised: bool) -> int:
    """Train the index on a random sample if it needs training. Returns the sample's size."""
    if index.is_trained:
        return 0
    size = min(len(vectors), spec.train_documents)
    rows = np.random.default_rng(spec.seed).choice(len(vectors), size, replace=False)
    try:
        index.train(finish(vectors[np.sort(rows)], normalised))
    except RuntimeError as error:
        raise InputError(
            f"FAISS could not train {spec.factory!r} on {size} documents: {error}",
            remedy="use a smaller factory, or indexes/flat.yaml",
        ) from error
    return size


def _add(index: Any, vectors: np.ndarray, normalised: bool) -> None:
    with bar("adding documents", len(vectors)) as progress:
        for start in range(0, len(vectors), CHUNK):
            chunk = finish(vectors[start : start + CHUNK], normalised)
            index.add(chunk)
            progress.advance(len(chunk))
