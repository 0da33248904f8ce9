"""The files of a training run: checkpoints to resume from, and the trained model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from transformers.trainer_utils import get_last_checkpoint

from retrieval_kd import files
from retrieval_kd.errors import InputError, log
from retrieval_kd.files import DamagedFile, damage, is_whole, read_json, seal, sweep, write_json
from retrieval_kd.training.trainer.card import describe_training
from retrieval_kd.training.trainer.devices import is_first

RECORD = "training.json"
BESIDE = "loss.safetensors"  # file of a checkpoint: weights that are trained besides the model
PROGRESS = "progress.json"  # file of a checkpoint: seconds so far, and the start of the curve


def check_replaceable(out: Path) -> None:
    """Refuse to replace a folder that does not hold an earlier training run."""
    files.check_replaceable(out, RECORD, "an earlier training run")


@contextmanager
def at_work(out: Path) -> Iterator[Path]:
    """Yield the folder for the checkpoints of a training that saves its model in `out`.

    Raises:
        InputError: another training is at work there, or `out` would replace something else.
    """
    check_replaceable(out)
    work = out.parent / f".{out.name}.training"
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(
        work / ".lock", is_singleton=True
    )  # counts when a command and a training hold it
    try:
        if is_first():
            lock.acquire(timeout=0)
    except Timeout as error:
        remedy = "wait for it, or give this training a different folder"
        raise InputError("another training is at work here", file=out, remedy=remedy) from error
    try:
        if is_first():
            sweep(out.parent, out.name)
        yield work
    finally:
        if lock.lock_counter == 1 and not any(work.glob("checkpoint-*")):
            shutil.rmtree(work, ignore_errors=True)
        lock.release()


def finished(out: Path, identity: str) -> bool:
    """Whether `out` holds the undamaged result of exactly this training run."""
    try:
        same = read_json(out / RECORD, "identity")["identity"] == identity
    except (OSError, DamagedFile):
        return False
    return same and is_whole(out, unsealed=True)


def last_whole_checkpoint(work: Path, identity: str) -> str | None:
    """Return the last undamaged checkpoint of this training run, and delete all others."""
    for folder in work.glob("checkpoint-*"):
        problem = damage(folder, identity)
        if problem:
            log.warning("no training resumes from %s: %s", folder, problem)
            shutil.rmtree(folder)
    return get_last_checkpoint(str(work))


def seal_checkpoint(folder: Path, identity: str) -> None:
    """Mark a checkpoint as complete, then delete the earlier ones."""
    seal(folder, identity)
    for other in folder.parent.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other)


def save_whole(model: Any, out: Path, record: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Save next to `out`, then rename: a killed save leaves no incomplete model in `out`."""
    out = out.resolve()  # if it is a link, what it names is replaced
    staged, old = (out.parent / f".{out.name}.{end}" for end in ("saving", "old"))
    for leftover in (staged, old):
        shutil.rmtree(leftover, ignore_errors=True)
    _forget_last_batch(model)
    model.save(str(staged), safe_serialization=True)
    for folder, other in others.items():
        other.save(str(staged / folder), safe_serialization=True)
    write_json(staged / RECORD, record)
    describe_training(staged, out.name, record)
    seal(staged)
    if out.exists():
        out.rename(old)
    staged.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _forget_last_batch(model: Any) -> None:
    """Have the tokenizer not save how it cut and padded last, which depends on what ran before."""
    tokenizer = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
    if tokenizer is not None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
