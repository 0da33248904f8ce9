"""Vectors of a frozen encoder for a training run's texts: the targets of objectives on vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from retrieval_kd.data.texts import Texts
from retrieval_kd.files import cache_dir, cached, digest_json
from retrieval_kd.hardware import dtype_name
from retrieval_kd.models.encode import VECTORS, document_vectors, encode_queries, save_array
from retrieval_kd.models.load import load_encoder, model_digest
from retrieval_kd.models.modules.adapter import AdapterEncoder
from retrieval_kd.progress import bar

CHUNK = 1024  # queries per update of the progress bar


@dataclass(frozen=True)
class TeacherVectors:
    """`queries (P, D)` by number of the pool, `documents (n, D)` by position in the collection."""

    queries: np.ndarray
    documents: np.ndarray

    def of_batch(self, pools: Sequence[int], documents: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the vectors of B queries and M documents of a batch."""
        return {
            "queries": torch.from_numpy(np.array(self.queries[list(pools)])),  # (B, D)
            "documents": torch.from_numpy(np.array(self.documents[documents])),  # (M, D)
        }


def teacher_vectors(
    model_spec: str,
    queries: Sequence[str],
    documents: Texts,
    *,
    max_length: int | None = None,
    digest: str | None = None,
) -> TeacherVectors:
    """Encode queries and documents once, and cache both for the next training.

    Vectors fit the model's own similarity: they have unit length if it is cosine.

    Args:
        digest: identifies the model in the cache; by default its `model_digest`. That of an
            adapter's base asks for the vectors of its encoder alone.
    """
    model = load_encoder(model_spec, max_length=max_length)
    if isinstance(model, AdapterEncoder) and digest == model.base_digest:
        model = model.encoder
    own = digest or model_digest(model_spec)
    key = digest_json([own, max_length, dtype_name(next(model.parameters()).dtype), queries])

    def encode(folder: Path) -> None:
        parts = []
        with bar("encoding queries for the student to learn", len(queries)) as progress:
            for start in range(0, len(queries), CHUNK):
                parts.append(encode_queries(model, queries[start : start + CHUNK]))
                progress.advance(len(parts[-1]))
        save_array(folder / VECTORS, np.concatenate(parts))

    folder = cached(cache_dir() / "query-vectors" / key, encode)
    vectors = document_vectors(
        model_spec, documents, max_length=max_length, model=model, digest=digest
    )
    return TeacherVectors(np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False), vectors)
