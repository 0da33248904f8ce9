"""Trains students of every kind with Sentence Transformers' trainers."""

from __future__ import annotations

from typing import Any

from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    SparseEncoder,
    SparseEncoderTrainer,
    SparseEncoderTrainingArguments,
)

from retrieval_kd.files import read_json
from retrieval_kd.schema import as_input_error
from retrieval_kd.students.dense import describe_student
from retrieval_kd.students.student import TableStudent, student_of
from retrieval_kd.training.batches.collate import SlateCollator
from retrieval_kd.training.batches.teacher_vectors import teacher_vectors
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.live_models import prompts_by_column
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.term_checks import check_for_collection, check_targets
from retrieval_kd.training.train_cross_encoder import train_cross_encoder
from retrieval_kd.training.train_table import train_table
from retrieval_kd.training.trainer import checkpoints, engine
from retrieval_kd.training.trainer.devices import processes


def train_student(job: TrainingJob) -> dict[str, Any]:
    """Train a student of any kind and save it in `job.out`.

    A stopped run resumes from its last checkpoint and ends in the same student. A finished run of
    the same job is not repeated.

    Returns:
        The content of `out/training.json`.

    Raises:
        InputError: an objective needs teacher scores or judgments and no pool has them, or `out`
            holds something other than an earlier training run.

    Example:
        >>> job = TrainingJob(student, pools, documents, terms, TrainSettings(), Path("out"))
        ... # doctest: +SKIP
        >>> train_student(job)["seconds"]  # doctest: +SKIP
    """
    if isinstance(job.student, CrossEncoder):
        return train_cross_encoder(job)
    check_targets(job.pools, job.terms)
    table = student_of(job.student)
    job.student._model_card_text = ""  # its card is a new one, not that of what it was made from
    if isinstance(table, TableStudent):
        return train_table(job, table)
    as_input_error(check_for_collection, job.terms, False)
    if checkpoints.finished(job.out, job.identity):
        return read_json(job.out / checkpoints.RECORD)
    student, pools, settings = job.student, job.pools, job.settings
    queries = [pool.query for pool in pools]
    vectors = {
        model: teacher_vectors(model, queries, job.documents, max_length=job.teacher_length)
        for model in job.vector_models
    }
    collator = SlateCollator(
        preprocess_fn=student.preprocess,
        prompts=prompts_by_column(student),
        pools=pools,
        texts=job.documents,
        settings=settings,
        vectors=vectors,
        keep_texts=bool(job.live) or any(term.reads_texts for term in job.terms),
        gathers=processes() > 1,
    )
    loss = ScoreMatrixLoss(
        student,
        job.terms,
        mini_batch_size=settings.mini_batch_size,
        widths={model: encoded.documents.shape[1] for model, encoded in vectors.items()},
        live=job.live,
        seed=settings.seed,
        members=0 if pools[0].members is None else len(pools[0].members),
    )
    return engine.train(
        job,
        *trainer_of(student),
        collator,
        loss,
        facts=lambda: {"student": describe_student(student)},
    )


def trainer_of(model: Any) -> tuple[Any, Any]:
    """Sentence Transformers' trainer for a kind of student, and its arguments."""
    if isinstance(model, MultiVectorEncoder):
        return MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    if isinstance(model, SparseEncoder):
        return SparseEncoderTrainer, SparseEncoderTrainingArguments
    return SentenceTransformerTrainer, SentenceTransformerTrainingArguments
