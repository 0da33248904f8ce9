"""Re-rank first-stage candidates by a cross-encoder, which cannot search by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from sentence_transformers import CrossEncoder

from retrieval_kd.data.collection import Collection
from retrieval_kd.targets.normalise import Scores
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher


class Reranker:
    """A cross-encoder that scores queries' candidates.

    Args:
        model_spec: the cross-encoder's MODEL.
        max_length: tokens of a query and a document together.
    """

    def __init__(self, collection: Collection, model_spec: str, *, max_length: int) -> None:
        self.collection = collection
        self._scorer = CrossEncoderTeacher(model_spec, max_length=max_length)

    @cached_property
    def model(self) -> CrossEncoder:
        return self._scorer.model

    def scores(self, queries: Mapping[str, str], candidates: Scores) -> Scores:
        """Score every query's candidates; returns raw logits by query and document.

        Args:
            queries: ID → text.
            candidates: query ID → document ID → first-stage score (ignored).
        """
        pairs = [(query, id) for query in queries for id in candidates.get(query, {})]
        documents = [self.collection.documents[id] for _, id in pairs]
        logits = self._scorer.score([queries[query] for query, _ in pairs], documents).tolist()
        scores: Scores = {}
        for (query, id), logit in zip(pairs, logits, strict=True):
            scores.setdefault(query, {})[id] = logit
        return scores
