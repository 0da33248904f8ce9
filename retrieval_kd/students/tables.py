"""What a student of token tables and frozen vectors tells its training besides its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FrozenModel:
    """The model whose vectors a student reads as "base" in `represent`, and which is not trained.

    Args:
        spec: what loads the model.
        digest: identifies it in the cache; by default its own digest.
        max_length: tokens of a text, where the training sets no limit.
        of_queries: whether a query's vector is read too. Without, a document's is its vector in
            this model as it is: only queries are trained.
    """

    spec: str
    digest: str | None = None
    max_length: int | None = None
    of_queries: bool = True


@dataclass(frozen=True)
class Halves:
    """The two halves of a vector, the encoder's and that of the words after it.

    Args:
        words: dimensions of the second half.
        log_weights: what is added to, to multiply the first and the second half.
        sides: the texts, "query" or "document", whose vectors this multiplies.
    """

    words: int
    log_weights: tuple[nn.Parameter, nn.Parameter]
    sides: tuple[str, ...] = ("query", "document")

    def weighed(self, vectors: Tensor, side: str, cosine: float, words: float) -> Tensor:
        """Return vectors (n, D' + D) with their halves multiplied."""
        if side not in self.sides:
            return vectors
        first, second = vectors[:, : -self.words], vectors[:, -self.words :]
        return torch.cat([cosine * first, words * second], dim=1)

    @torch.no_grad()
    def weigh(self, cosine: float, words: float) -> None:
        """Multiply the two halves of every vector from now on."""
        for parameter, factor in zip(self.log_weights, (cosine, words), strict=True):
            parameter.add_(float(np.log(factor)))
