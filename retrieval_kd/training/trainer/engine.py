"""Runs a training job with one of Sentence Transformers' trainers.

A job that was stopped is resumed, and a job that has ended is not run again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, set_seed

from retrieval_kd.files import read_json, write_json
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.training.job import TrainingJob
from retrieval_kd.training.trainer.callbacks import Bar, Clock, Follow, trained_beside
from retrieval_kd.training.trainer.checkpoints import (
    RECORD,
    check_replaceable,
    clear_if_other,
    finished,
    last_whole_checkpoint,
    save_whole,
)
from retrieval_kd.training.trainer.curve import DevEvaluator, curve_from_log
from retrieval_kd.training.trainer.devices import (
    SharedTrainer,
    is_first,
    processes,
    share_of,
    wait_for_all,
)
from retrieval_kd.training.trainer.settings import TrainSettings


def train(
    job: TrainingJob,
    trainer_class: Any,
    arguments_class: type[Any],
    collator: Callable[..., Any],
    loss: torch.nn.Module,
    facts: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Train the job's model and save it in `job.out` with `training.json`.

    If `job.out` already holds the result of the same job, nothing is trained. A training of the
    same job that was stopped is resumed from its last checkpoint; other checkpoints are deleted.

    Args:
        trainer_class, arguments_class: Sentence Transformers' trainer for this kind of model.
        collator: turns rows of the schedule into a batch.
        facts: returns what else to record, called when the training has ended.

    Returns:
        The content of `training.json`.

    Raises:
        InputError: `job.out` holds something else than a training.
    """
    model, settings, out, identity = job.student, job.settings, job.out, job.identity
    done = out / RECORD
    if finished(out, identity):
        return read_json(done)
    check_replaceable(out)
    evaluator: Any = DevEvaluator(job.dev) if job.dev is not None else None
    work = out.parent / f".{out.name}.training"
    own = trained_beside(loss)
    if is_first():
        clear_if_other(work, identity)
        last_whole_checkpoint(work, own)  # removes torn ones
    wait_for_all()
    checkpoint = last_whole_checkpoint(work, own)
    clock = Clock(work / "seconds.json")
    evaluation_length = model.max_seq_length
    model.max_seq_length = settings.max_tokens
    own_dropout = set_dropout(torch.nn.ModuleList([model, loss]), settings.dropout)
    set_seed(settings.seed)
    trainer: Any = type("Trainer", (SharedTrainer, trainer_class), {})(
        model=model,
        args=_arguments(arguments_class, settings, work, loss, evaluates=evaluator is not None),
        train_dataset=job.schedule(),
        loss=loss,
        evaluator=evaluator,
        data_collator=collator,
        callbacks=[*([Bar(settings.steps)] if is_first() else []), clock, Follow(loss)],
    )
    trainer.remove_callback(PrinterCallback)
    if evaluator is not None and checkpoint is None:
        measured = evaluator(model)
        if is_first():
            write_json(work / "start.json", {"step": 0, **measured})
    trainer.train(resume_from_checkpoint=checkpoint)
    model.max_seq_length = evaluation_length
    for module, probability in own_dropout:
        module.p = probability
    if is_first():
        start = [read_json(work / "start.json")] if (work / "start.json").exists() else []
        record = {
            "identity": identity,
            "steps": settings.steps,
            "seconds": round(clock.seconds(), 1),
            "processes": processes(),
            "resumed_from_step": int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0,
            "settings": settings.model_dump(),
            "curve": curve_from_log([*start, *trainer.state.log_history]),
            "queries": len(job.pools),
            "terms": job.terms_as_json,
            **facts(),
        }
        save_whole(model, out, record, job.trained_live)
        shutil.rmtree(work, ignore_errors=True)
    wait_for_all()
    return read_json(done)


def set_dropout(model: torch.nn.Module, probability: float) -> list[tuple[torch.nn.Dropout, float]]:
    """Set the probability of every dropout layer.

    The default setting is 0: the teacher's scores already regularise, and on a CPU dropout in the
    attention keeps torch from using its fused kernel.

    Returns:
        Each layer with its previous probability, to be restored before saving.
    """
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    before = [(layer, layer.p) for layer in layers]
    for layer in layers:
        layer.p = probability
    return before


def _arguments(
    kind: type[Any], settings: TrainSettings, work: Path, loss: torch.nn.Module, *, evaluates: bool
) -> Any:
    rate, heads = settings.head_learning_rate, head_parameters(loss)
    return kind(
        learning_rate_mapping={heads_pattern(heads): rate} if rate and heads else {},
        output_dir=str(work),
        max_steps=settings.steps,
        per_device_train_batch_size=share_of(settings.batch_queries),
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="linear",
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=fast_dtype() == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.eval_steps,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=1,
        logging_nan_inf_filter=False,
        logging_steps=max(1, min(settings.eval_steps, settings.steps) // 2),
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def head_parameters(loss: torch.nn.Module) -> list[str]:
    """Names of the trained parameters outside transformer encoders: heads, projections."""
    encoders = [m.base_model for m in loss.modules() if isinstance(m, PreTrainedModel)]
    inside = {id(p) for encoder in encoders for p in encoder.parameters()}
    return [n for n, p in loss.named_parameters() if p.requires_grad and id(p) not in inside]


def heads_pattern(names: Sequence[str]) -> str:
    """Build the regular expression for `learning_rate_mapping` that matches these parameters."""
    return "^(" + "|".join(re.escape(name) for name in names) + ")$"
