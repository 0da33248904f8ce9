"""The files of a training run: checkpoints to resume from, and the trained model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import get_last_checkpoint

from retrieval_kd.errors import InputError
from retrieval_kd.files import read_json, write_json
from retrieval_kd.training.trainer.card import describe_training

RECORD = "training.json"
BESIDE = "loss.safetensors"  # file of a checkpoint: weights that are trained besides the model


def check_replaceable(out: Path) -> None:
    """Refuse to replace a folder that does not hold an earlier training run."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).exists())):
        raise InputError(
            "this folder does not hold an earlier training run, and would be replaced",
            file=out,
            remedy="give a new folder",
        )


def finished(out: Path, identity: str) -> bool:
    """Whether `out` holds the result of exactly this training run."""
    done = out / RECORD
    return done.exists() and bool(read_json(done)["identity"] == identity)


def last_whole_checkpoint(work: Path, own: torch.nn.Module | None = None) -> str | None:
    """Return the last complete checkpoint, and delete incomplete ones.

    The trainer's state is written first, the weights of the loss last.
    """
    for folder in work.glob("checkpoint-*"):
        try:
            read_json(folder / "trainer_state.json")
            whole = own is None or (folder / BESIDE).exists()
        except (OSError, ValueError):
            whole = False
        if not whole:
            shutil.rmtree(folder)
    return get_last_checkpoint(str(work))


def clear_if_other(work: Path, identity: str) -> None:
    """Delete checkpoints of a different training run, and note whose the new ones are."""
    mark = work / "identity.json"
    if work.exists() and (not mark.exists() or read_json(mark) != identity):
        shutil.rmtree(work)
    write_json(mark, identity)


def save_whole(model: Any, out: Path, record: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Save next to `out`, then rename: a killed save leaves no incomplete model in `out`."""
    staged, old = (out.parent / f".{out.name}.{end}" for end in ("saving", "old"))
    for leftover in (staged, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save(str(staged), safe_serialization=True)
    for folder, other in others.items():
        other.save(str(staged / folder), safe_serialization=True)
    write_json(staged / RECORD, record)
    describe_training(staged, out.name, record)
    if out.exists():
        out.rename(old)
    staged.rename(out)
    shutil.rmtree(old, ignore_errors=True)
