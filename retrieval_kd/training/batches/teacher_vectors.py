"""Vectors of a frozen encoder for a training run's texts: the targets of objectives on vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from retrieval_kd.data.texts import Texts
from retrieval_kd.files import cache_dir, cached, digest_json, is_whole
from retrieval_kd.hardware import dtype_name
from retrieval_kd.models.encode import VECTORS, document_vectors, encode_queries, save_array
from retrieval_kd.models.load import load_encoder, model_digest
from retrieval_kd.models.modules.adapter import AdapterEncoder
from retrieval_kd.progress import bar

CHUNK = 1024  # queries that are cached together: a killed call loses at most these


@dataclass(frozen=True)
class TeacherVectors:
    """`queries (P, D)` by number of the pool, `documents (n, D)` by position in the collection.

    With `axes (E, D)`, the first principal axes of the documents' vectors.
    """

    queries: np.ndarray
    documents: np.ndarray
    axes: np.ndarray | None = None

    def of_batch(self, pools: Sequence[int], documents: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the vectors of B queries and M documents of a batch, and the axes."""
        axes = {} if self.axes is None else {"axes": torch.from_numpy(self.axes)}
        return {
            "queries": torch.from_numpy(np.array(self.queries[list(pools)])),  # (B, D)
            "documents": torch.from_numpy(np.array(self.documents[documents])),  # (M, D)
            **axes,
        }


def teacher_vectors(
    model_spec: str,
    queries: Sequence[str],
    documents: Texts,
    *,
    max_length: int | None = None,
    digest: str | None = None,
) -> TeacherVectors:
    """Encode queries and documents once, and cache both: a killed call continues where it was.

    Vectors fit the model's own similarity: they have unit length if it is cosine.

    Args:
        digest: identifies the model in the cache; by default its `model_digest`. That of an
            adapter's base asks for the vectors of its encoder alone.
    """
    model = load_encoder(model_spec, max_length=max_length)
    if isinstance(model, AdapterEncoder) and digest == model.base_digest:
        model = model.encoder
    own = digest or model_digest(model_spec)
    settings = [own, max_length, dtype_name(next(model.parameters()).dtype)]
    chunks = [list(queries[at : at + CHUNK]) for at in range(0, len(queries), CHUNK)]
    root = cache_dir() / "query-vectors"
    folders = [root / digest_json([*settings, chunk]) for chunk in chunks]
    missing = [pair for pair in zip(folders, chunks, strict=True) if not is_whole(pair[0])]
    with bar("encoding training queries", sum(len(c) for _, c in missing)) as progress:
        for folder, chunk in missing:

            def encode(folder: Path, chunk: list[str] = chunk) -> None:
                save_array(folder / VECTORS, encode_queries(model, chunk))

            cached(folder, encode)
            progress.advance(len(chunk))
    parts = [np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False) for folder in folders]
    vectors = document_vectors(
        model_spec, documents, max_length=max_length, model=model, digest=digest
    )
    none = encode_queries(model, [])  # (0, D)
    return TeacherVectors(parts[0] if len(parts) == 1 else np.concatenate([none, *parts]), vectors)
