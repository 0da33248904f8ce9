"""Trains cross-encoders, teachers and students alike, on the pairs of texts of each slate.

The objectives are the same as for other students, on a score matrix that is filled for each query's
own slate only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from torch import Tensor, nn

from retrieval_kd.data.texts import Texts
from retrieval_kd.schema import as_input_error
from retrieval_kd.students.dense import describe_student
from retrieval_kd.training.batches.collate import slate_tensors
from retrieval_kd.training.batches.slates import Pool, draw_slates
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.objective.batch import Batch, evaluate_terms
from retrieval_kd.training.objective.term_checks import check_for_pairs, check_targets
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.states import Imitation
from retrieval_kd.training.trainer import engine
from retrieval_kd.training.trainer.settings import FIT_DEFAULTS, TrainSettings, check_uncached


def train_cross_encoder(job: TrainingJob) -> dict[str, Any]:
    """Train a cross-encoder on slates and save it in `job.out`.

    A stopped run resumes and a finished one is not repeated, as in `train_student`. No learning
    curve is measured on dev queries: one point would take queries × documents pairs.

    Returns:
        The content of `out/training.json`.

    Raises:
        InputError: an objective needs what a cross-encoder or the pools do not have, or the
            settings ask for cached gradients.
    """
    check_for_cross_encoder(job)
    job = replace(job, dev=None, live={})
    return train_on_pairs(
        job, CrossEncoderTrainer, lambda: {"student": describe_student(job.student)}
    )


def check_for_cross_encoder(job: TrainingJob) -> None:
    """Refuse a job that a model which scores pairs cannot be trained with."""
    as_input_error(check_uncached, job.settings.mini_batch_size)
    as_input_error(check_for_pairs, job.terms)
    check_targets(job.pools, job.terms)


def train_on_pairs(
    job: TrainingJob, trainer_class: Any, facts: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Train a model that scores pairs of texts on slates, see `engine.train`."""
    collator = PairCollator(
        preprocess_fn=job.student.preprocess,
        pools=job.pools,
        texts=job.documents,
        settings=job.settings,
    )
    loss = PairLoss(job.student, job.terms)
    return engine.train(
        job,
        trainer_class,
        CrossEncoderTrainingArguments,
        collator,
        loss,
        facts=lambda: {**facts(), **job.made},
    )


@dataclass
class PairCollator(CrossEncoderDataCollator):
    """Collates rows of the schedule into tokenised pairs, grouped by length, and their targets."""

    pools: Sequence[Pool] = field(default_factory=list)
    texts: Texts | None = None
    settings: TrainSettings = FIT_DEFAULTS

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        assert self.texts is not None
        rows = [(int(row["pool"]), int(row["draw"])) for row in features]
        slates = draw_slates(self.pools, rows, self.settings)
        pairs, owner = [], []
        for row, (index, _) in enumerate(rows):
            for column, at in enumerate(slates[row].positions):
                pairs.append([self.pools[index].query, self.texts.at(int(at)).full])
                owner.append((row, column))
        order = np.argsort([-len(query) - len(text) for query, text in pairs], kind="stable")
        columns = np.zeros((len(rows), self.settings.slate_size), dtype=np.int64)
        for place, i in enumerate(order):
            columns[owner[i]] = place
        batch: dict[str, Any] = {}
        step = self.settings.group_size
        for start in range(0, len(order), step):
            group = [pairs[i] for i in order[start : start + step]]
            batch[f"group{start // step}"] = dict(self.preprocess_fn(group))
        batch["label"] = slate_tensors(slates, columns)
        return batch


class PairLoss(nn.Module):
    """Objectives on a cross-encoder's logits: every query sees its own slate only.

    Objectives on states compare the student's layers with those of a frozen encoder that reads the
    same pairs (`states.py`).

    Args:
        model: a `CrossEncoder`, or a different model that returns `scores` of preprocessed pairs.
    """

    def __init__(self, model: Any, terms: Sequence[Term]) -> None:
        super().__init__()
        self.model, self.terms = model, list(terms)
        self.progress = 0.0
        self.imitation = Imitation(model, terms).to(model.device)

    def forward(
        self, features: Sequence[dict[str, Tensor]], labels: Mapping[str, Tensor], **_: Any
    ) -> dict[str, Tensor]:
        logits, compared = [], []
        for group in features:
            with self.imitation.watch(self.model) as seen:
                logits.append(self.model(dict(group))["scores"].float().reshape(-1))
            compared.append(self.imitation.compare(seen, group))
        scores = torch.cat(logits).expand(len(labels["mask"]), -1)  # (B, pairs), indexed by columns
        batch = Batch.of_scores(scores, labels, self.progress)
        batch.states = self.imitation.means(compared)
        return evaluate_terms(self.terms, batch)
