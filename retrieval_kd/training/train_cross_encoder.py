"""Training of cross-encoders, teachers and students alike: slates as pairs of texts.

The same objectives as everywhere, on a score matrix that is known for each query's own slate only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from torch import Tensor, nn

from retrieval_kd.data.texts import Texts
from retrieval_kd.models.load import model_digest
from retrieval_kd.schema import as_input_error
from retrieval_kd.students.dense import describe_student
from retrieval_kd.training.batches.collate import draw_slates, slate_tensors
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.objective.batch import Batch, evaluate_terms
from retrieval_kd.training.objective.term_checks import check_for_pairs, check_targets
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.states.imitation import Imitation
from retrieval_kd.training.trainer import engine
from retrieval_kd.training.trainer.settings import FIT_DEFAULTS, TrainSettings, check_uncached


def train_cross_encoder(
    model: CrossEncoder,
    pools: Sequence[Pool],
    documents: Texts,
    terms: Sequence[Term],
    settings: TrainSettings,
    out: Path,
    *,
    groups: Mapping[str, tuple[int, int, float]] | None = None,
) -> dict[str, Any]:
    """Train a cross-encoder on slates and save it in `out`; gives what `out/training.json` holds.

    Resumed, or not run again, as every training. There is no learning curve on dev queries: a point
    would be as many pairs as there are queries times documents.

    Args:
        pools: queries with candidates and targets, from `slates.build_pools`.
        terms: the weighted sum of objectives, on slates and stored scores, or on hidden states.
        groups: shares of the training by name, see `engine.schedule`.

    Raises:
        InputError: an objective needs what a cross-encoder or the pools do not have, or gradients
            are to be cached.
    """
    as_input_error(check_uncached, settings.mini_batch_size)
    as_input_error(check_for_pairs, terms)
    check_targets(pools, terms)
    told: list[Any] = [[term.model_dump() for term in terms]]
    spoken = dict.fromkeys(term.teacher for term in terms if term.kind == "states")
    if spoken:
        told.append([model_digest(spec) for spec in spoken])
    if groups:
        told.append(dict(groups))
    return engine.train(
        model,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        settings,
        out,
        identity=engine.identity_of(model, pools, documents, settings, *told),
        schedule=engine.schedule(len(pools), settings, groups),
        collator=PairCollator(
            preprocess_fn=model.preprocess, pools=pools, texts=documents, settings=settings
        ),
        loss=PairLoss(model, terms),
        facts=lambda: {
            "queries": len(pools),
            "terms": told[0],
            "student": describe_student(model),
        },
    )


@dataclass
class PairCollator(CrossEncoderDataCollator):
    """Collates schedule rows into tokenised pairs in groups of similar length, and targets."""

    pools: Sequence[Pool] = field(default_factory=list)
    texts: Texts | None = None
    settings: TrainSettings = FIT_DEFAULTS

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        assert self.texts is not None
        rows = [(int(row["pool"]), int(row["draw"])) for row in features]
        size, depth = self.settings.slate_size, self.settings.slate_depth
        own = self.settings
        slates = draw_slates(self.pools, rows, size, depth, own.seed, own.sampling)
        pairs, owner = [], []
        for row, (index, _) in enumerate(rows):
            for column, at in enumerate(slates[row].positions):
                pairs.append([self.pools[index].query, self.texts.at(int(at)).full])
                owner.append((row, column))
        order = np.argsort([-len(query) - len(text) for query, text in pairs], kind="stable")
        columns = np.zeros((len(rows), size), dtype=np.int64)
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

    Objectives on states compare the student's layers with those of a frozen encoder, which reads
    the same pairs (`imitation.py`).

    Args:
        model: a `CrossEncoder`, or whatever else gives `scores` of the pairs it preprocessed.
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
            compared.append(self.imitation.compare(self.model, seen, group))
        scores = torch.cat(logits).expand(
            len(labels["mask"]), -1
        )  # (B, pairs), seen through columns
        batch = Batch.of_scores(scores, labels, self.progress)
        batch.states = self.imitation.means(compared)
        return evaluate_terms(self.terms, batch)
