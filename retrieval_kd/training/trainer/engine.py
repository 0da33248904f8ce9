"""Runs a training job with one of Sentence Transformers' trainers.

A job that was stopped is resumed, and a job that has ended is not run again.
"""

from __future__ import annotations

import re
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, set_seed

from retrieval_kd.files import atomic_path, named_writes, read_json, write_json
from retrieval_kd.hardware import fast_dtype
from retrieval_kd.progress import bar
from retrieval_kd.training.job import TrainingJob, schedule
from retrieval_kd.training.trainer.checkpoints import (
    BESIDE,
    PROGRESS,
    RECORD,
    at_work,
    finished,
    last_whole_checkpoint,
    save_whole,
    seal_checkpoint,
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

    If `job.out` already holds the result of the same job, nothing is trained. A stopped
    run of the same job resumes from its last checkpoint; other checkpoints are deleted.

    Args:
        trainer_class, arguments_class: Sentence Transformers' trainer for this kind of model.
        collator: turns rows of the schedule into a batch.
        facts: returns what else to record, called when the training has ended.

    Returns:
        The content of `training.json`.
    """
    if finished(job.out, job.identity):
        return read_json(job.out / RECORD)
    model, settings, identity = job.student, job.settings, job.identity
    evaluator: Any = DevEvaluator(job.dev) if job.dev is not None else None
    with at_work(job.out) as work:
        if is_first():
            last_whole_checkpoint(work, identity)  # deletes damaged checkpoints
        wait_for_all()
        checkpoint = last_whole_checkpoint(work, identity)
        clock = Clock(Path(checkpoint) / PROGRESS if checkpoint else None)
        evaluation_length = model.max_seq_length
        model.max_seq_length = min(settings.max_tokens, _positions(model) or settings.max_tokens)
        own_dropout = set_dropout(torch.nn.ModuleList([model, loss]), settings.dropout)
        set_seed(settings.seed)
        bars = [Bar(settings.steps)] if is_first() else []
        trainer: Any = type("Trainer", (SharedTrainer, trainer_class), {})(
            model=model,
            args=_arguments(arguments_class, settings, work, loss, evaluates=evaluator is not None),
            train_dataset=schedule(job.rows, settings, job.groups),
            loss=loss,
            evaluator=evaluator,
            data_collator=collator,
            callbacks=[*bars, clock, Follower(loss, identity)],
        )
        trainer.remove_callback(PrinterCallback)
        if evaluator is not None and checkpoint is None:
            clock.start = [{"step": 0, **evaluator(model)}]
        with named_writes(work):
            trainer.train(resume_from_checkpoint=checkpoint)
        model.max_seq_length = evaluation_length
        for module, probability in own_dropout:
            module.p = probability
        if is_first():
            history = [*clock.start, *trainer.state.log_history]
            record = _record(job, clock, checkpoint, history) | facts()
            with named_writes(job.out):
                save_whole(model, job.out, record, job.trained_live)
            for kept in work.glob("checkpoint-*"):
                shutil.rmtree(kept, ignore_errors=True)
        wait_for_all()
    return read_json(job.out / RECORD)


def _record(
    job: TrainingJob, clock: Clock, checkpoint: str | None, history: list[Any]
) -> dict[str, Any]:
    return {
        "identity": job.identity,
        "steps": job.settings.steps,
        "seconds": round(clock.seconds(), 1),
        "seconds_per_step": clock.seconds_per_step(),
        "processes": processes(),
        "resumed_from_step": int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0,
        "settings": job.settings.model_dump(),
        "curve": curve_from_log(history),
        "queries" if job.texts is None else "texts": job.rows,
        "terms": job.terms_as_json,
    }


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
    pattern = "^(" + "|".join(map(re.escape, heads)) + ")$"
    return kind(
        learning_rate_mapping={pattern: rate} if rate and heads else {},
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


class Clock(TrainerCallback):
    """Counts the seconds of a run, with those of earlier attempts up to their checkpoint.

    `start` is the learning curve's point before the first step, if there is one.
    """

    def __init__(self, kept: Path | None) -> None:
        progress: dict[str, Any] = read_json(kept) if kept else {"seconds": 0.0, "start": []}
        self._before, self._began = float(progress["seconds"]), time.monotonic()
        self.start: list[dict[str, Any]] = progress["start"]
        self._ended = self._began  # the step before, with what follows it
        self._steps: list[float] = []

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def seconds_per_step(self) -> float | None:
        """Median of this attempt's steps but the first, which warms up; None with one step."""
        return round(statistics.median(self._steps[1:]), 4) if len(self._steps) > 1 else None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        now = time.monotonic()
        self._steps.append(now - self._ended)
        self._ended = now

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / PROGRESS, {"seconds": self.seconds(), "start": self.start})


class Follower(TrainerCallback):
    """Sets the progress of the loss, and completes each checkpoint with the loss's own weights."""

    def __init__(self, loss: torch.nn.Module, identity: str) -> None:
        self._loss, self._own, self._identity = loss, trained_beside(loss), identity

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._own is not None and state.global_step:
            kept = Path(args.output_dir) / f"checkpoint-{state.global_step}" / BESIDE
            load_model(self._own, kept)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._loss.progress = state.global_step / max(1, state.max_steps)  # type: ignore[assignment]

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._own is not None:  # the trainer clips the model's gradients alone
            torch.nn.utils.clip_grad_norm_(self._own.parameters(), args.max_grad_norm)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self._own is not None and state.is_world_process_zero:
            with atomic_path(folder / BESIDE) as temporary:
                save_model(self._own, str(temporary))
        wait_for_all()  # each process saves its own random state
        if state.is_world_process_zero:
            seal_checkpoint(folder, self._identity)


class Bar(TrainerCallback):
    """The toolkit's progress bar in place of the trainer's."""

    def __init__(self, steps: int) -> None:
        self._context = bar("training", steps)
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar = self._context.__enter__()
        self._bar.advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.advance()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._context.__exit__(None, None, None)


def trained_beside(loss: torch.nn.Module) -> torch.nn.Module | None:
    """Return the weights that a loss trains besides the model, if its `own_state` has any."""
    own_state: Any = getattr(loss, "own_state", None)
    own = own_state() if own_state is not None else None
    return own if own is not None and own.state_dict() else None


def _positions(model: Any) -> int | None:
    """Return how many tokens a model of Sentence Transformers has positions for, if it says so."""
    parts = model.modules()  # the transformer may be behind a router
    transformer = next((m.auto_model for m in parts if hasattr(m, "auto_model")), None)
    config = getattr(transformer, "config", None)
    return getattr(config, "max_position_embeddings", None)
