"""Texts that a stage goes through one by one, without slates, and their batches."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from retrieval_kd.data.texts import Texts
from retrieval_kd.training.batches.collate import NO_QUERIES, tokenised
from retrieval_kd.training.batches.teacher_vectors import TeacherVectors
from retrieval_kd.training.trainer.settings import TrainSettings


@dataclass(frozen=True)
class PlainTexts:
    """The texts of a stage: those that are read as queries, then documents by their positions."""

    queries: Sequence[str]
    documents: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.queries) + len(self.documents)

    @property
    def digest(self) -> str:
        """Digest of all texts and positions, 32 hex digits."""
        state = hashlib.blake2b(digest_size=16)
        for query in self.queries:
            state.update(query.encode("utf-8", errors="surrogatepass") + b"\0")
        state.update(self.documents.astype(np.int64).tobytes())
        return state.hexdigest()


@dataclass
class TextCollator(SentenceTransformerDataCollator):
    """Collates schedule rows `{"pool": int}`, each of which is the number of a text.

    Columns are those of `SlateCollator`; a batch without queries has no `query_*` and says so under
    `no_queries`. The label dict has `vectors` too: `queries (B, D)` and `documents (M, D)`.
    """

    plain: PlainTexts = field(default_factory=lambda: PlainTexts([], np.zeros(0, np.int64)))
    texts: Texts | None = None
    settings: TrainSettings = field(default_factory=TrainSettings)
    vectors: Mapping[str, TeacherVectors] = field(default_factory=dict)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        numbers = np.array([int(row["pool"]) for row in features])
        among = len(self.plain.queries)
        queries = numbers[numbers < among]  # (B,)
        positions = np.asarray(self.plain.documents)[numbers[numbers >= among] - among]  # (M,)
        assert self.texts is not None
        documents = [self.texts.at(int(at)).full for at in positions]
        order = np.argsort([-len(text) for text in documents], kind="stable").astype(np.int64)
        batch = tokenised(
            self,
            [self.plain.queries[number] for number in queries],
            [documents[i] for i in order],
            self.settings.group_size,
        )
        vectors = {
            model: own.of_batch(queries.tolist(), positions[order])
            for model, own in self.vectors.items()
        }
        batch["label"] = {"vectors": vectors, NO_QUERIES: not len(queries)}
        return batch
