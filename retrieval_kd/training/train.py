"""The training stage for students: slates and objectives into Sentence Transformers' trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

from retrieval_kd.data.texts import Texts
from retrieval_kd.files import read_json, write_json
from retrieval_kd.students.dense import describe_student
from retrieval_kd.training import engine
from retrieval_kd.training.collate import SlateCollator
from retrieval_kd.training.curve import DevEvaluator, DevTask
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.settings import TrainSettings
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
        InputError: an objective learns from a teacher (labels) and no pool has scores (judgments),
            or `out` holds something that is no earlier training.
    """
    check_targets(pools, terms)
    told = [term.model_dump() for term in terms]
    identity = engine.identity_of(
        student, pools, documents, settings, told, dict(groups or {}), asdict(dev) if dev else None
    )
    collator = SlateCollator(
        preprocess_fn=student.preprocess,
        prompts=prompts_of(student),
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


def prompts_of(model: SentenceTransformer) -> dict[str, str]:
    """The prompts that `encode_query` and `encode_document` would use, by column."""
    prompts = {name: prompt for name, prompt in (model.prompts or {}).items() if prompt}
    default = prompts.get(model.default_prompt_name or "", "")
    names = {"query": ("query",), "document": ("document", "passage", "corpus")}
    found = {
        column: next((prompts[name] for name in candidates if name in prompts), default)
        for column, candidates in names.items()
    }
    return {column: prompt for column, prompt in found.items() if prompt}
