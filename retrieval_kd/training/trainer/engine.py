"""Runs one of Sentence Transformers' trainers so that it can be killed, resumed and skipped.

What is trained, on what, with which loss, is the caller's business (`train.py`, `fit_teacher.py`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.base.modules import Module
from transformers import PreTrainedModel, PrinterCallback, set_seed

from retrieval_kd.data.texts import Texts
from retrieval_kd.files import digest_json, read_json, write_json
from retrieval_kd.hardware import dtype_name, fast_dtype
from retrieval_kd.models.layers import weights_digest
from retrieval_kd.training.batches.slates import Pool, digest_pools
from retrieval_kd.training.trainer.callbacks import Bar, Clock, Follow, trained_beside
from retrieval_kd.training.trainer.checkpoints import (
    RECORD,
    check_replaceable,
    clear_if_other,
    finished,
    last_whole_checkpoint,
    save_whole,
)
from retrieval_kd.training.trainer.curve import curve_from_log
from retrieval_kd.training.trainer.devices import (
    SharedTrainer,
    is_first,
    processes,
    share_of,
    wait_for_all,
)
from retrieval_kd.training.trainer.settings import TrainSettings


def identity_of(
    model: Any, pools: Sequence[Pool], documents: Texts, settings: TrainSettings, *more: Any
) -> str:
    """Digest of everything that decides a training's outcome on one machine."""
    of_data = [digest_pools(pools), documents.digest]
    dtype = dtype_name(fast_dtype())
    return digest_json([state_of(model), of_data, settings.model_dump(), dtype, *more])


def state_of(model: Any) -> list[Any]:
    """All that a model's scores depend on: weights, length, modules, and their configurations."""
    config = {k: v for k, v in model._get_model_config().items() if k != "__version__"}
    # a head's configuration is neither among the weights nor in the model's name of itself
    modules = [m.get_config_dict() for m in model.modules() if isinstance(m, Module)]
    return [weights_digest(model), model.max_seq_length, str(model), config, modules]


def train(
    model: Any,
    trainer_class: Any,
    arguments_class: type[Any],
    settings: TrainSettings,
    out: Path,
    *,
    identity: str,
    schedule: Dataset,
    collator: Callable[..., Any],
    loss: torch.nn.Module,
    evaluator: Any = None,
    beside: Mapping[str, Any] | None = None,
    facts: Callable[[], dict[str, Any]] = dict,
) -> dict[str, Any]:
    """Train, save the model in `out` with `training.json`, and give that record.

    A record of the same identity in `out` is given back without training; checkpoints of the same
    identity are resumed from, others removed.

    Args:
        beside: further models that are trained, by the folder in `out` that each is saved in.
        facts: what the record shall have besides, asked after the training.
    """
    done = out / RECORD
    if finished(out, identity):
        return read_json(done)
    check_replaceable(out)
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
        train_dataset=schedule,
        loss=loss,
        evaluator=evaluator,
        data_collator=collator,
        callbacks=[*([Bar(settings.steps, out.name)] if is_first() else []), clock, Follow(loss)],
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
            **facts(),
        }
        save_whole(model, out, record, beside or {})
        shutil.rmtree(work, ignore_errors=True)
    wait_for_all()
    return read_json(done)


def schedule(
    pools: int,
    settings: TrainSettings,
    groups: Mapping[str, tuple[int, int, float]] | None = None,
) -> Dataset:
    """Which pool each row of the training draws from: rows `{"pool", "draw"}`.

    Args:
        groups: shares of the rows by name → (first pool, end, share), for instance judged and
            unlabelled queries half and half. Without it pools are drawn evenly.
    """
    rng = np.random.default_rng([settings.seed, 17])
    rows = settings.steps * settings.batch_queries
    parts = [p for p in (groups or {"all": (0, pools, 1.0)}).values() if p[1] > p[0] and p[2] > 0]
    ends = np.round(np.cumsum([share for *_, share in parts]) / sum(p[2] for p in parts) * rows)
    counts = np.diff(ends.astype(int), prepend=0)
    chosen = []
    for (start, stop, _), count in zip(parts, counts, strict=True):
        passes = -(-int(count) // (stop - start))
        ordered = [rng.permutation(np.arange(start, stop)) for _ in range(passes)]
        chosen.append(np.concatenate([*ordered, np.zeros(0, np.int64)])[:count])
    pool = np.concatenate(chosen).astype(np.int64)
    return Dataset.from_dict({"pool": rng.permutation(pool), "draw": np.arange(rows)})


def set_dropout(model: torch.nn.Module, probability: float) -> list[tuple[torch.nn.Dropout, float]]:
    """Set every dropout layer; gives what they were, to be put back before saving.

    Zero is the default: the teacher's distribution already regularises, and on a CPU dropout in the
    attention keeps torch from its fused kernel.
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
    """Names of what is trained above transformer encoders: heads, projections."""
    encoders = [m.base_model for m in loss.modules() if isinstance(m, PreTrainedModel)]
    inside = {id(p) for encoder in encoders for p in encoder.parameters()}
    return [n for n, p in loss.named_parameters() if p.requires_grad and id(p) not in inside]


def heads_pattern(names: Sequence[str]) -> str:
    """The regular expression by which Sentence Transformers' `learning_rate_mapping` finds them."""
    return "^(" + "|".join(re.escape(name) for name in names) + ")$"
