"""Merge a LoRA adapter into its base model: W + (α/r) · B A in place of W."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from retrieval_kd.errors import InputError
from retrieval_kd.models import lora as adapters
from retrieval_kd.models.load import load_language_model, model_digest, resolve_model
from retrieval_kd.teachers.pointwise.yes_no import SETTINGS_FILE


def merge_adapter(spec: str, out: Path) -> None:
    """Write the merged model into `out`, in float32, so that the adapter is not rounded off.

    The model keeps the adapter's prompt and needs neither the adapter, its base nor peft.

    Raises:
        InputError: `spec` is no adapter's folder, or `out` is not empty.
    """
    adapters.need_peft()
    folder = Path(resolve_model(spec).location)
    base = adapters.base_of(folder)
    if base is None:
        raise InputError("this is no adapter of a language model", file=folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("there is something already", file=out, remedy="give a new folder")
    model, tokenizer = load_language_model(base, dtype=torch.float32)
    merged = adapters.load_adapters(model, folder, model_digest(base)).merge_and_unload()
    staged = out.parent / f".{out.name}.saving"
    shutil.rmtree(staged, ignore_errors=True)
    merged.save_pretrained(staged, safe_serialization=True)
    tokenizer.save_pretrained(staged)
    if (folder / SETTINGS_FILE).is_file():
        shutil.copyfile(folder / SETTINGS_FILE, staged / SETTINGS_FILE)
    if out.exists():
        out.rmdir()
    staged.rename(out)
