"""What is checked of a run before any of its stages runs: splits, store, and models' settings."""

from __future__ import annotations

from pathlib import Path

from retrieval_kd.config.run import ENCODERS
from retrieval_kd.config.student import LayerChoice, Student
from retrieval_kd.config.teacher import and_choosers
from retrieval_kd.config.training import Training
from retrieval_kd.errors import InputError
from retrieval_kd.models.facts import vector_size
from retrieval_kd.models.load import check_length
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.retrieval.retrieve import retriever_models
from retrieval_kd.students.make import (
    check_base_layers,
    check_kept,
    check_plan,
    check_seeds_alike,
    planned_size,
)
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.training.objective.term_checks import check_width

LOCAL = ("pointwise", *ENCODERS)  # kinds of teachers that never run on a server


def check_splits(context: RunContext) -> None:
    """Refuse splits that the collection does not have, before anything runs."""
    collection, splits = context.collection, context.config.splits
    if splits.train is not None and splits.train not in collection.splits:
        raise InputError(
            f"collection {context.config.collection} has no split {splits.train!r} to train on; "
            f"it has {', '.join(collection.splits)}",
            remedy="name the one to train on (splits.train=NAME), never the one that is tested; if "
            "there is only one, move some of its judgments to qrels/train.tsv",
        )
    for split in filter(None, (splits.train, splits.dev, splits.test)):
        collection.qrels(split)
    _check_log(context)


def check_models(context: RunContext) -> None:
    """Refuse what the models do not allow, and a store that is none, before anything is paid for.

    Models are not loaded: their configurations say it.
    """
    config, fit = context.config, context.config.teacher.fit
    _ = context.ensemble.store
    for training in config.students.values():
        student = config.student_for(training)
        widths = config.widths if student.searched_as == "dense" else []
        check_plan(
            student.base,
            student.kind,
            student.layers if isinstance(student.layers, list) else None,
            max_length=student.max_length,
            dimensions=student.dimensions,
            widths=widths,
            query=student.query,
        )
        check_start(student, training)
        if training.merged_with == "seeds":
            check_seeds_alike(student.base, student.kind, student.dimensions)
        for stage in training.all_stages:
            length = training.train_settings(stage, config.train).max_tokens
            for live in stage.live.values():
                if live.model != "start":
                    check_base_layers(live.model, live.layers)
                    check_length(live.model, length)
    for model in [config.encoder, *retriever_models(config.first_stage.with_)]:
        check_length(model, config.student.max_length)
    if fit and not fit.is_decoder:
        check_base_layers(fit.base, fit.layers)
        check_length(fit.base, config.teacher.max_length)
    for member in and_choosers(context.ensemble.members):
        spec = parse_spec(member)
        if spec.kind in LOCAL and member != config.teacher.fitted:
            check_length(spec.model, config.max_length_for(spec.kind))


def _check_log(context: RunContext) -> None:
    """Refuse a query log that is neither a file nor a split, or a split that the run uses."""
    config, collection = context.config, context.collection
    log = config.unlabelled.log if config.unlabelled is not None else None
    if log is None:
        return
    if log in (config.splits.train, config.splits.dev, config.splits.test):
        is_train = log == config.splits.train
        remedy = "leave splits.train out, or the log" if is_train else "name another log"
        raise InputError(f"unlabelled.log is {log!r}, a split that the run uses", remedy=remedy)
    if log not in collection.splits and not Path(log).is_file():
        raise InputError(
            f"unlabelled.log {log!r} is neither a file nor a split of the collection "
            f"({', '.join(collection.splits)})",
            remedy="name a file of queries: .txt with one a line, .tsv with ID and text, or .jsonl",
        )


def check_start(student: Student, training: Training) -> None:
    """Refuse layers to choose that the base does not have, and a teacher's vectors to imitate that
    have another size than the student's, by the models' files alone.
    """
    if isinstance(student.layers, LayerChoice):
        check_kept(student.base, student.layers.keep)
    if student.start is not None:  # whose size only its folder says
        return
    terms = [
        term
        for stage in training.all_stages
        for term in stage.objective
        if term.imitates or term.projects
    ]
    size = planned_size(student.base, student.kind, student.dimensions) if terms else None
    for term in terms:
        check_width([term], term.teacher, vector_size(term.teacher), size)
