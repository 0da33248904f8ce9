"""The training stage for students: slates and objectives into Sentence Transformers' trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

from retrieval_kd.data.texts import Texts
from retrieval_kd.files import read_json, write_json
from retrieval_kd.students.dense import describe_student, weights_digest
from retrieval_kd.training import engine
from retrieval_kd.training.collate import SlateCollator
from retrieval_kd.training.curve import DevEvaluator, DevTask
from retrieval_kd.training.engine import TrainSettings
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.slates import Pool
from retrieval_kd.training.terms import Term, check_targets


def train_student(
    student: SentenceTransformer,
    pools: Sequence[Pool],
    documents: Texts,
    terms: Sequence[Term],
    settings: TrainSettings,
    out: Path,
    *,
    dev: DevTask | None = None,
    groups: Mapping[str, tuple[int, int, float]] | None = None,
) -> dict[str, Any]:
    """Train `student` and save it in `out`; gives what `out/training.json` holds.

    A training that was killed goes on from its last checkpoint and ends in the same student; a
    finished one with the same inputs is not run again.

    Args:
        pools: queries with candidates and targets, from `slates.build_pools`.
        documents: the collection's texts, which the pools point into.
        terms: the weighted sum of objectives.
        dev: where the learning curve is measured, every `settings.eval_steps`.
        groups: shares of the training by name, see `engine.schedule`.

    Raises:
        InputError: an objective learns from a teacher (labels) and no pool has scores (judgments).
    """
    check_targets(pools, terms)
    told = [term.model_dump() for term in terms]
    identity = engine.identity_of(
        weights_digest(student), pools, settings, documents.digest, told, dict(groups or {})
    )
    collator = SlateCollator(
        preprocess_fn=student.preprocess,
        prompts={k: v for k, v in (student.prompts or {}).items() if v},
        pools=pools,
        texts=documents,
        slate_size=settings.slate_size,
        slate_depth=settings.slate_depth,
        group_size=settings.group_size,
        seed=settings.seed,
    )
    record = engine.train(
        student,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        settings,
        out,
        identity=identity,
        schedule=engine.schedule(len(pools), settings, groups),
        collator=collator,
        loss=ScoreMatrixLoss(student, terms),
        evaluator=DevEvaluator(dev) if dev is not None else None,
    )
    if "student" not in record:
        record |= {"queries": len(pools), "terms": told, "student": describe_student(student)}
        write_json(out / engine.RECORD, record)
    return read_json(out / engine.RECORD)
