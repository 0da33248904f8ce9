"""LoRA adapters of language models: folders in peft's own format that name their base model.

LoRA (Hu et al. 2021, section 4.1, https://arxiv.org/abs/2106.09685) freezes a weight matrix W and
trains two thin ones beside it: W + (α/r) · B A, with A (r, in) and B (out, r). The package `peft`
is needed only to make or load an adapter.
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
BASE = "base.json"  # name and digest of the base that the adapter was trained on
PLACE = ("base_model_name_or_path", "revision")  # of the base; not part of an adapter's digest
ALL_LINEAR = "all-linear"


class Lora(Part):
    """The shape of LoRA adapters. Dropout is a training setting."""

    rank: int = Field(8, ge=1, le=65_536, description="r: columns of the thin matrices")
    alpha: float | None = Field(
        None, gt=0, description="the adapters' output is scaled by alpha/rank; by default 2 × rank"
    )
    targets: str | list[str] = Field(
        ALL_LINEAR,
        description="names of the layers with an adapter, such as [q_proj, v_proj]; all-linear: "
        "every linear layer but the output embedding",
    )


def need_peft() -> None:
    """Raise `InputError` early if the package `peft` is not installed."""
    if importlib.util.find_spec("peft") is None:
        remedy = "pip install 'retrieval_kd[lora]'"
        raise InputError("LoRA adapters need the package peft", remedy=remedy)


def base_of(folder: str | Path) -> str | None:
    """Return the MODEL that an adapter's folder belongs to; None if the folder is not an adapter.

    Adapters saved by Sentence Transformers do not count: that package loads them itself.

    Raises:
        InputError: the base was a folder that no longer exists.
    """
    config = Path(folder) / CONFIG
    if not config.is_file() or (Path(folder) / "modules.json").exists():
        return None
    try:
        place, revision = (read_json(config).get(key) for key in PLACE)
        if not isinstance(place, str | None) or not isinstance(revision, str | None):
            raise ValueError(f"{' and '.join(PLACE)} are texts")
    except ValueError as error:
        problem = f"not the configuration of an adapter: {error}"
        raise InputError(problem, file=config, remedy="save it again with peft") from error
    if not place or (Path(place).is_absolute() and not Path(place).is_dir()):
        raise InputError(
            f"the model that this adapter belongs to is missing: {place or 'not named'}",
            file=config,
            remedy=f"write its present place into {PLACE[0]}",
        )
    _refuse_circle(Path(folder), Path(place))
    return f"{place}@{revision}" if revision and not Path(place).is_dir() else place


def _refuse_circle(folder: Path, place: Path) -> None:
    """Refuse an adapter that belongs to itself, directly or through others."""
    seen = {folder.resolve()}
    while (place / CONFIG).is_file():
        if place.resolve() in seen:
            remedy = f"write the model that it was trained on into {PLACE[0]}"
            raise InputError("this adapter belongs to itself", file=folder / CONFIG, remedy=remedy)
        seen.add(place.resolve())
        place = Path(str(read_json(place / CONFIG).get(PLACE[0]) or ""))


def root_of(model: str) -> str:
    """Follow adapters down to the MODEL below them, whose name says how to prompt it.

    Example:
        >>> root_of("Qwen/Qwen3-Reranker-0.6B")
        'Qwen/Qwen3-Reranker-0.6B'
    """
    base = base_of(model)
    return model if base is None else root_of(base)


def config_digest(folder: str | Path) -> str:
    """Digest an adapter's configuration, without its weights and the place of its base."""
    settings = {k: v for k, v in read_json(Path(folder) / CONFIG).items() if k not in PLACE}
    # peft writes layer names, which are a set, in any order
    for key, value in settings.items():
        with contextlib.suppress(TypeError):  # of several kinds, which have no order
            settings[key] = sorted(value) if isinstance(value, list) else value
    return digest_json(settings)


def add_adapters(model: Any, lora: Lora, dropout: float, place: str, revision: str | None) -> Any:
    """Freeze a causal language model and add new adapters, drawn from torch's global generator.

    Args:
        place: folder or hub name of the model, for the adapter's configuration.

    Returns:
        peft's wrapper of the model. Before training it scores like the base, because B is 0.
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
        with _without_peft_warnings():
            adapted = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(
            f"no adapters for {lora.targets}: {error}",
            remedy=f"name linear layers of the model, or {ALL_LINEAR}",
        ) from error
    config.base_model_name_or_path = place
    return adapted


def save_adapters(adapted: Any, folder: str | Path, name: str, digest: str) -> None:
    """Write peft's two files, and the base's name and digest."""
    adapted.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    write_json(Path(folder) / BASE, {"model": name, "digest": digest})


def load_adapters(model: Any, folder: str | Path, digest: str) -> Any:
    """Load an adapter onto its base. Returns peft's wrapper, for inference.

    Args:
        digest: the base's digest; compared with `base.json`, if the adapter has that file.

    Raises:
        InputError: the adapter was trained on a different base, its weights are for other layers,
            or they are not in a safetensors file.
    """
    need_peft()
    from peft import PeftModel

    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"no {WEIGHTS} in this adapter", file=folder, remedy="save it with peft")
    own = folder / BASE
    base = read_json(own, "model", "digest") if own.is_file() else {"digest": digest}
    if base["digest"] != digest:
        raise InputError(
            "the model under this adapter is not the one it was trained on",
            file=folder,
            remedy=f"restore {base['model']}, or train a new adapter for the current model",
        )
    try:
        with _without_peft_warnings():
            adapted = PeftModel.from_pretrained(model, str(folder)).eval()
            # only a second load returns the missing and unexpected weights
            report = adapted.load_adapter(str(folder), "default")
    except Exception as error:  # peft and safetensors raise many kinds
        raise InputError(f"not an adapter of this model: {error}", file=folder) from error
    for keys, problem in (
        (report.unexpected_keys, "has weights for layers the model does not have"),
        (report.missing_keys, "lacks weights for some of its own layers"),
    ):
        if keys:
            rest = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise InputError(
                f"the adapter {problem}: {min(keys)}{rest}",
                file=folder / WEIGHTS,
                remedy="use it with the model that it was trained on, or save it again with peft",
            )
    return adapted


@contextlib.contextmanager
def _without_peft_warnings() -> Iterator[None]:
    """Silence warnings for peft's authors, and those that are errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        yield
