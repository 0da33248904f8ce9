"""Embedding neighbours: texts that a model puts close together, paraphrases included.

Fröbe et al. (How Train-Test Leakage Affects Zero-shot Retrieval, SPIRE 2022, section 3) found test
topics of Robust04 among MS MARCO's training queries this way. What "close" means depends on the
model: look at the pairs before choosing another threshold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from retrieval_kd.audit.texts import DistinctTexts
from retrieval_kd.files import new_array
from retrieval_kd.models.encode import document_vectors, encode_queries, finish
from retrieval_kd.models.load import load_encoder
from retrieval_kd.progress import bar
from retrieval_kd.retrieval.dense import search_vectors

BLOCK = 1_024  # texts encoded at a time


class Encoder:
    """A model that encodes texts as vectors of unit length."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.model: SentenceTransformer = load_encoder(spec)

    def vectors(self, texts: DistinctTexts, path: Path, *, documents: bool) -> np.ndarray:
        """Vectors (texts, d) float32 in a file; most of a corpus comes from the shared cache."""
        dimensions = self.model.get_embedding_dimension() or 0
        made = new_array(path, (len(texts), dimensions), np.float32)
        whole = texts.texts.collection
        cached = None
        if documents and whole is not None and 2 * len(texts) >= len(whole):
            cached = document_vectors(self.spec, whole, model=self.model)
        with bar(f"encoding {texts.texts.source}", len(texts)) as progress:
            for start in range(0, len(texts), BLOCK):
                rows = texts.first[start : start + BLOCK]
                if cached is not None:
                    vectors = cached[texts.texts.positions[rows]]
                else:
                    vectors = self._encode([texts.texts.text(int(i)) for i in rows], documents)
                made[start : start + len(rows)] = finish(vectors, normalise=True)
                progress.advance(len(rows))
        made.flush()
        return np.load(path, mmap_mode="r")

    def _encode(self, texts: list[str], documents: bool) -> np.ndarray:
        if not documents:
            return encode_queries(self.model, texts)
        return np.asarray(self.model.encode_document(texts, show_progress_bar=False))


def neighbour_pairs(
    evaluated: DistinctTexts,
    trained: DistinctTexts,
    encoder: Encoder,
    threshold: float,
    most: int,
    *,
    documents: bool,
) -> Iterator[tuple[int, int, float]]:
    """Yield (evaluated, trained, cosine) at or above `threshold`, `most` per evaluated text."""
    if not len(evaluated) or not len(trained):
        return
    with tempfile.TemporaryDirectory(prefix="rkd-audit-") as folder:
        left = encoder.vectors(evaluated, Path(folder) / "evaluated.npy", documents=documents)
        right = encoder.vectors(trained, Path(folder) / "trained.npy", documents=documents)
        depth = min(most, len(trained))
        for start in range(0, len(left), BLOCK):
            block = np.ascontiguousarray(left[start : start + BLOCK])
            for i, nearest in enumerate(search_vectors(block, right, depth, str), start):
                for j, cosine in nearest.items():
                    if cosine >= threshold:
                        yield i, int(j), min(1.0, cosine)
