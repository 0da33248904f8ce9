"""The training stage for students: slates and objectives into Sentence Transformers' trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    SparseEncoder,
    SparseEncoderTrainer,
    SparseEncoderTrainingArguments,
)

from retrieval_kd.data.texts import Texts
from retrieval_kd.files import read_json
from retrieval_kd.models.load import model_digest
from retrieval_kd.students.dense import describe_student
from retrieval_kd.training.batches.collate import SlateCollator
from retrieval_kd.training.batches.slates import Pool
from retrieval_kd.training.batches.vectors import teacher_vectors
from retrieval_kd.training.live_models import LiveCrossEncoder, LiveEncoder
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.term_checks import check_targets
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.training.train_cross_encoder import train_cross_encoder
from retrieval_kd.training.trainer import checkpoints, engine
from retrieval_kd.training.trainer.curve import DevEvaluator, DevTask
from retrieval_kd.training.trainer.devices import processes
from retrieval_kd.training.trainer.settings import TrainSettings

LiveModel = LiveEncoder | LiveCrossEncoder


def train_student(
    student: Any,
    pools: Sequence[Pool],
    documents: Texts,
    terms: Sequence[Term],
    settings: TrainSettings,
    out: Path,
    *,
    dev: DevTask | None = None,
    groups: Mapping[str, tuple[int, int, float]] | None = None,
    teacher_length: int | None = None,
    live: Mapping[str, LiveModel] | None = None,
) -> dict[str, Any]:
    """Train `student` and save it in `out`; gives what `out/training.json` holds.

    A training that was killed goes on from its last checkpoint and ends in the same student; a
    finished one with the same inputs is not run again.

    Args:
        student: of any kind; a cross-encoder learns as `pairs.train_cross_encoder` says.
        pools: queries with candidates and targets, from `slates.build_pools`.
        documents: the collection's texts, which the pools point into.
        terms: the weighted sum of objectives.
        teacher_length: tokens of a text for the models whose vectors are learnt.
        live: live teachers by name; what terms call `teacher: NAME`. One that trains is saved in
            `out/live/NAME`.
        dev: where the learning curve is measured, every `settings.eval_steps`; a cross-encoder has
            none.
        groups: shares of the training by name, see `engine.schedule`.

    Raises:
        InputError: an objective learns from a teacher (labels) and no pool has scores (judgments),
            or `out` holds something that is no earlier training.
    """
    if isinstance(student, CrossEncoder):
        return train_cross_encoder(student, pools, documents, terms, settings, out, groups=groups)
    check_targets(pools, terms)
    told = [term.model_dump() for term in terms]
    models = dict.fromkeys(term.teacher for term in terms if term.kind == "vectors")
    learnt: list[Any] = [[model_digest(model), teacher_length] for model in models]
    states = dict.fromkeys(term.teacher for term in terms if term.kind == "states")
    learnt += [[model_digest(model)] for model in states]
    shares, task = dict(groups or {}), asdict(dev) if dev else None
    teachers = {name: [engine.state_of(t.model), t.trains] for name, t in (live or {}).items()}
    identity = engine.identity_of(
        student, pools, documents, settings, told, learnt, shares, task, teachers
    )
    if checkpoints.finished(out, identity):
        return read_json(out / checkpoints.RECORD)
    queries = [pool.query for pool in pools]
    vectors = {
        model: teacher_vectors(model, queries, documents, max_length=teacher_length)
        for model in models
    }
    collator = SlateCollator(
        preprocess_fn=student.preprocess,
        prompts=prompts_of(student),
        pools=pools,
        texts=documents,
        slate_size=settings.slate_size,
        slate_depth=settings.slate_depth,
        group_size=settings.group_size,
        seed=settings.seed,
        sampling=settings.sampling,
        vectors=vectors,
        keep_texts=bool(live) or any(term.reads_texts for term in terms),
        gathers=processes() > 1,
    )
    student._model_card_text = ""  # its card is a new one, not that of the model it was made from
    return engine.train(
        student,
        *trainer_of(student),
        settings,
        out,
        identity=identity,
        schedule=engine.schedule(len(pools), settings, groups),
        collator=collator,
        loss=ScoreMatrixLoss(
            student,
            terms,
            mini_batch_size=settings.mini_batch_size,
            widths={model: found.documents.shape[1] for model, found in vectors.items()},
            live=live,
            seed=settings.seed,
            members=0 if pools[0].members is None else len(pools[0].members),
        ),
        evaluator=DevEvaluator(dev) if dev is not None else None,
        beside={f"live/{name}": t.model for name, t in (live or {}).items() if t.trains},
        facts=lambda: {
            "queries": len(pools),
            "terms": told,
            "student": describe_student(student),
        },
    )


def trainer_of(model: Any) -> tuple[Any, Any]:
    """Sentence Transformers' trainer for a kind of student, and its arguments."""
    if isinstance(model, MultiVectorEncoder):
        return MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    if isinstance(model, SparseEncoder):
        return SparseEncoderTrainer, SparseEncoderTrainingArguments
    return SentenceTransformerTrainer, SentenceTransformerTrainingArguments


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
