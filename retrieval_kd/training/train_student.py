"""Trains students of every kind with Sentence Transformers' trainers."""

from __future__ import annotations

from dataclasses import replace
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
from retrieval_kd.models.load import IMITATES, document_digest
from retrieval_kd.models.projection import fit_projection
from retrieval_kd.schema import as_input_error
from retrieval_kd.students.dense import describe_student
from retrieval_kd.students.student import TableStudent, student_of
from retrieval_kd.training.batches.collate import SlateCollator
from retrieval_kd.training.batches.plain_texts import TextCollator
from retrieval_kd.training.batches.teacher_vectors import TeacherVectors, teacher_vectors
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.live_models import prompts_by_column
from retrieval_kd.training.loss import ScoreMatrixLoss
from retrieval_kd.training.objective.term_checks import (
    check_for_collection,
    check_targets,
    check_width,
)
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
    student, settings = job.student, job.settings
    vectors = _target_vectors(job)
    common: dict[str, Any] = {
        "preprocess_fn": student.preprocess,
        "prompts": prompts_by_column(student),
        "texts": job.documents,
        "settings": settings,
        "vectors": vectors,
    }
    if job.texts is not None:
        collator: Any = TextCollator(**common, plain=job.texts)
    else:
        collator = SlateCollator(
            **common,
            pools=job.pools,
            keep_texts=bool(job.live) or any(term.reads_texts for term in job.terms),
            gathers=processes() > 1,
        )
    members = None if job.texts is not None else job.pools[0].members
    loss = ScoreMatrixLoss(
        student,
        job.terms,
        mini_batch_size=settings.mini_batch_size,
        live=job.live,
        members=0 if members is None else len(members),
    )
    return engine.train(
        job,
        *trainer_of(student),
        collator,
        loss,
        facts=lambda: {"student": describe_student(student), **job.made, **imitated(job)},
    )


def _target_vectors(job: TrainingJob) -> dict[str, TeacherVectors]:
    """Return the vectors of each MODEL that is a teacher, by its name in the terms."""
    texts = [pool.query for pool in job.pools] if job.texts is None else job.texts.queries
    vectors = {}
    for model in job.vector_models:
        found = teacher_vectors(model, texts, job.documents, max_length=job.teacher_length)
        terms = [term for term in job.terms if term.teacher == model]
        own = int(job.student.get_embedding_dimension())
        check_width(terms, model, found.documents.shape[1], own)
        if any(term.projects for term in terms):
            found = replace(found, axes=fit_projection(found.documents, own, "pca"))
        vectors[model] = found
    return vectors


def imitated(job: TrainingJob) -> dict[str, Any]:
    """Say whose vectors the student's are now like, for `training.json`: MODEL → its digest.

    An index of such a model can be searched with the student.
    """
    models = {term.teacher for term in job.terms if term.imitates}
    digests = {model: document_digest(model) for model in sorted(models)}
    return {IMITATES: digests} if digests else {}


def trainer_of(model: Any) -> tuple[Any, Any]:
    """Sentence Transformers' trainer for a kind of student, and its arguments."""
    if isinstance(model, MultiVectorEncoder):
        return MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    if isinstance(model, SparseEncoder):
        return SparseEncoderTrainer, SparseEncoderTrainingArguments
    return SentenceTransformerTrainer, SentenceTransformerTrainingArguments
