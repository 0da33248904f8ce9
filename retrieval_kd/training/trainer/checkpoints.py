"""What a training leaves on disk: checkpoints to resume from, and the model, saved whole."""

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
BESIDE = "loss.safetensors"  # in a checkpoint: what is trained beside the model


def check_replaceable(out: Path) -> None:
    """Refuse to replace a folder that is not an earlier training's.

    Raises:
        InputError: `out` holds something else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / RECORD).exists())):
        raise InputError(
            "this is no earlier training of ours, and it would be replaced",
            file=out,
            remedy="give a new folder",
        )


def finished(out: Path, identity: str) -> bool:
    """Whether `out` holds the outcome of exactly this training."""
    done = out / RECORD
    return done.exists() and bool(read_json(done)["identity"] == identity)


def last_whole_checkpoint(work: Path, own: torch.nn.Module | None = None) -> str | None:
    """The last checkpoint that was written to its end: trainer state, then weights of the loss."""
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
    mark = work / "identity.json"
    if work.exists() and (not mark.exists() or read_json(mark) != identity):
        shutil.rmtree(work)
    write_json(mark, identity)


def save_whole(model: Any, out: Path, record: Mapping[str, Any], beside: Mapping[str, Any]) -> None:
    """Save beside `out`, then rename: a killed save leaves no half model under the final name."""
    staged, old = (out.parent / f".{out.name}.{end}" for end in ("saving", "old"))
    for leftover in (staged, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save(str(staged), safe_serialization=True)
    for folder, other in beside.items():
        other.save(str(staged / folder), safe_serialization=True)
    write_json(staged / RECORD, record)
    describe_training(staged, out.name, record)
    if out.exists():
        out.rename(old)
    staged.rename(out)
    shutil.rmtree(old, ignore_errors=True)
