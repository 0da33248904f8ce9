"""LoRA adapters of language models: folders in peft's own format, which name the model they are of.

LoRA (Hu et al. 2021, section 4.1, https://arxiv.org/abs/2106.09685) leaves a weight matrix W as it
is and trains two thin ones beside it: W + (α/r) · B A, with A (r, in) and B (out, r). Here is how
such a folder is recognised, told apart and put on its base; `models.py` loads both,
`training/yes_no.py` makes them. Needs the package `peft` only where an adapter is made or loaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_json, read_json, write_json
from retrieval_kd.schema import Part

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base.json"  # the base as it was when the adapter was trained
PLACE = ("base_model_name_or_path", "revision")  # where the base is; what it is its digest says
ALL_LINEAR = "all-linear"


class Lora(Part):
    """The shape of LoRA adapters. Their dropout is the training's."""

    rank: int = Field(8, ge=1, description="r: columns of the thin matrices")
    alpha: float | None = Field(
        None, gt=0, description="scale of what they add is alpha/rank; none: 2 × rank"
    )
    targets: str | list[str] = Field(
        ALL_LINEAR,
        description="names of the layers that get one, such as [q_proj, v_proj]; all-linear: all "
        "linear layers but the output words",
    )


def need_peft() -> None:
    """Refuse early what could not be done later.

    Raises:
        InputError: the package is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise InputError(
            "LoRA adapters need the package peft",
            remedy="pip install 'retrieval_kd[lora]'",
        )


def base_of(folder: str | Path) -> str | None:
    """The MODEL that an adapter's folder belongs to; None if it is no adapter of a language model.

    (Sentence Transformers puts adapters into folders of its own, and loads them itself.)

    Raises:
        InputError: its base was a folder which is not there any more.
    """
    config = Path(folder) / CONFIG
    if not config.is_file() or (Path(folder) / "modules.json").exists():
        return None
    place, revision = (read_json(config).get(key) for key in PLACE)
    if not place or (Path(place).is_absolute() and not Path(place).is_dir()):
        raise InputError(
            f"the model that this adapter belongs to is not there: {place or 'not named'}",
            file=config,
            remedy=f"write into {PLACE[0]} where it is now",
        )
    return f"{place}@{revision}" if revision and not Path(place).is_dir() else str(place)


def root_of(model: str) -> str:
    """The MODEL under an adapter's folder, whose name says what it was trained for; else itself.

    Example:
        >>> root_of("Qwen/Qwen3-Reranker-0.6B")
        'Qwen/Qwen3-Reranker-0.6B'

    Raises:
        InputError: its base was a folder which is not there any more.
    """
    base = base_of(model)
    return model if base is None else root_of(base)


def own_digest(folder: str | Path) -> str:
    """Of an adapter's configuration, wherever its base lies; its weights are not looked at."""
    told = {k: v for k, v in read_json(Path(folder) / CONFIG).items() if k not in PLACE}
    # names of layers are a set, which peft writes in any order
    return digest_json({k: sorted(v) if isinstance(v, list) else v for k, v in told.items()})


def add_adapters(model: Any, lora: Lora, dropout: float, place: str, revision: str | None) -> Any:
    """Freeze a causal language model and put new adapters on it, drawn from torch's own generator.

    Args:
        model: changed in place.
        place: folder or hub name of the model, to be written into the adapter's configuration.

    Returns:
        peft's model around it, whose scores are the base's until it is trained: B is 0.

    Raises:
        InputError: the model has no such layers.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=2 * lora.rank if lora.alpha is None else lora.alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=lora.targets,
        revision=revision,
    )
    try:
        with _without_their_warnings():
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(
            f"no adapters for {lora.targets}: {error}",
            remedy=f"name linear layers of the model, or {ALL_LINEAR}",
        ) from error
    config.base_model_name_or_path = place
    return adapted


def save_adapters(adapted: Any, folder: str | Path, name: str, digest: str) -> None:
    """Write peft's two files, and the base's name and digest beside them."""
    adapted.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    write_json(Path(folder) / BASE, {"model": name, "digest": digest})


def put_on(model: Any, folder: str | Path, digest: str) -> Any:
    """An adapter's weights on its base: peft's model around it, for inference.

    Args:
        model: the base, changed in place.
        digest: the base's, which must be what the adapter was trained on, where that is told.

    Raises:
        InputError: it is another base, its weights are of other layers, or they are not in a
            safetensors file.
    """
    need_peft()
    from peft import PeftModel

    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"no {WEIGHTS} in this adapter", file=folder, remedy="save it with peft")
    told = read_json(folder / BASE) if (folder / BASE).is_file() else {"digest": digest}
    if told["digest"] != digest:
        raise InputError(
            "the model under this adapter is not the one it was trained on",
            file=folder,
            remedy=f"put {told['model']} back, or train an adapter of the new one",
        )
    try:
        with _without_their_warnings():
            adapted = PeftModel.from_pretrained(model, str(folder)).eval()
            # peft tells only of a second load what it had no weights for, and no place for
            left = adapted.load_adapter(str(folder), "default")
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise InputError(f"not an adapter of this model: {error}", file=folder) from error
    for found, problem in (
        (left.unexpected_keys, "has weights of layers that this model lacks"),
        (left.missing_keys, "lacks weights of layers that it is for"),
    ):
        if found:
            raise InputError(
                f"the adapter {problem}: {min(found)} and {len(found) - 1} more",
                file=folder / WEIGHTS,
                remedy="put it on the model that it was trained on, or save it again with peft",
            )
    return adapted


@contextlib.contextmanager
def _without_their_warnings() -> Iterator[None]:
    """Without what is for peft's authors, or said here as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        yield
