"""The adapter between objectives and Sentence Transformers' trainer: one module for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from retrieval_kd.students.dense import embed, score_matrix, similarity_of
from retrieval_kd.training.terms import Term, evaluate_terms, with_temperature

DEFAULT_TEMPERATURE = {"cosine": 0.05, "dot": 1.0}


class ScoreMatrixLoss(nn.Module):
    """Σ weight · objective(student score matrix, targets, mask); each component is logged.

    Args:
        model: the student.
        terms: the objectives. Where one has a `student_temperature` and none is given it is 0.05
            for a cosine student and 1 for a dot-product student.

    Inputs: features of the queries and of one or more groups of documents, and the label dict of
    `SlateCollator`.
    """

    def __init__(self, model: SentenceTransformer, terms: Sequence[Term]) -> None:
        super().__init__()
        self.model = model
        self.similarity = similarity_of(model)
        temperature = DEFAULT_TEMPERATURE[self.similarity]
        self.terms = [with_temperature(term, temperature) for term in terms]

    def forward(
        self, features: Sequence[dict[str, Tensor]], labels: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        queries = embed(self.model, features[0])  # (B, D)
        documents = torch.cat([embed(self.model, group) for group in features[1:]])  # (M, D)
        scores = score_matrix(queries, documents, self.similarity)  # (B, M)
        return evaluate_terms(self.terms, scores, labels)
