"""Callbacks of the trainer: progress bar, seconds, and the weights of the loss."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load_model, save_model
from transformers import TrainerCallback

from retrieval_kd.files import atomic_path, read_json, write_json
from retrieval_kd.progress import bar
from retrieval_kd.training.trainer.checkpoints import BESIDE


class Clock(TrainerCallback):
    """Counts the seconds of a training, with those of earlier attempts up to their checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path, self._start = path, time.monotonic()
        self._before = float(read_json(path)) if path.exists() else 0.0

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            write_json(self._path, self.seconds())


@runtime_checkable
class OwnsWeights(Protocol):
    """A loss with its own weights, such as projections and live teachers."""

    def own_state(self) -> torch.nn.Module: ...


class Follow(TrainerCallback):
    """Sets the progress of the loss, and saves the loss's own weights with each checkpoint."""

    def __init__(self, loss: torch.nn.Module) -> None:
        self._loss, self._own = loss, trained_beside(loss)

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
        if self._own is not None and state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            with atomic_path(folder / BESIDE) as temporary:
                save_model(self._own, str(temporary))


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
    """Return the weights that a loss trains besides the model, or None."""
    own = loss.own_state() if isinstance(loss, OwnsWeights) else None
    return own if own is not None and len(own.state_dict()) else None
