"""The texts of a training step: how many, and how long they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from retrieval_kd.models.shapes import Shape
from retrieval_kd.pipeline.forecast.amounts import distinct
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.training.trainer.settings import TrainSettings


def texts_at_once() -> int:
    """Most texts in a step that is measured; a larger batch is scaled from one of this size."""
    return 4_096 if torch.cuda.is_available() else 96


@dataclass(frozen=True)
class Step:
    """The texts of a training step: of each sort their number, tokens and mean length."""

    texts: float
    tokens: float
    length: float

    def flops(self, shape: Shape | None) -> float:
        """Operations of the step; without a transformer, its texts stand for them."""
        return shape.training(self.tokens, self.length) if shape else self.texts


def step_of(
    settings: TrainSettings, kind: str, documents: int, tokens: tuple[float, float], *, texts: bool
) -> Step:
    """Count a step's texts. A document that several slates draw is read once, by even chance.

    Args:
        documents: of the collection.
        tokens: mean tokens of a query and of a document, as the step reads them; of a re-ranker the
            second is that of a pair.
        texts: the stage goes through texts without slates, half of which are documents.
    """
    batch, drawn = settings.batch_queries, settings.batch_queries * settings.slate_size
    if texts:
        return Step(batch, batch * sum(tokens) / 2, sum(tokens) / 2)
    if kind in RE_RANKS:
        return Step(drawn, drawn * tokens[1], tokens[1])
    read = distinct(drawn, documents)
    total = batch * tokens[0] + read * tokens[1]
    return Step(batch + read, total, total / (batch + read))


def fitting_batch(settings: TrainSettings, texts: bool) -> int:
    """Queries of a batch that is measured in place of a larger one."""
    each = 1 if texts else settings.slate_size + 1
    return min(settings.batch_queries, max(2, texts_at_once() // each))
