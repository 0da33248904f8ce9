"""Turns a model's name into a model, and into the digest its scores and indexes are keyed by.

What names there are is in `model_names.py`.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
)
from sentence_transformers.util import load_file_path
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text, read_json
from retrieval_kd.hardware import best_device, fast_dtype
from retrieval_kd.models import lora as adapters
from retrieval_kd.models.modules import class_of
from retrieval_kd.models.names import ModelRef, hub_commit, resolve_model, unreachable

KINDS: dict[str, Any] = {
    "dense": SentenceTransformer,
    "sparse": SparseEncoder,
    "multi_vector": MultiVectorEncoder,
}
WEIGHT_FILES = (".safetensors", ".bin", ".json", ".txt", ".model")
WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
NOT_OF_A_MODEL = {"training.json"}  # a training's record holds times: same weights, same digest


def model_digest(spec: str) -> str:
    """32 hex digits of a local model's weights, configuration and tokenizer, or of hub name@commit.

    Two folders with the same content have the same digest, wherever they are. That of an adapter
    is of its base, too.
    """
    ref = resolve_model(spec)
    if not ref.is_local:
        return digest_text("hub", ref.location, hub_commit(ref))
    files = sorted(p for p in Path(ref.location).rglob("*") if _is_of_model(p))
    base = adapters.base_of(ref.location)
    if base is not None:
        files = [p for p in files if p.name not in (adapters.CONFIG, adapters.BASE)]
        own = adapters.own_digest(ref.location), _digest_files(ref.location, files)
        return digest_text("adapter", *own, model_digest(base))
    return _digest_files(ref.location, files)


def _digest_files(folder: str, files: list[Path]) -> str:
    stamp = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    return _digest_folder(folder, stamp)


def _is_of_model(path: Path) -> bool:
    return path.suffix in WEIGHT_FILES and path.name not in NOT_OF_A_MODEL


@lru_cache(maxsize=64)
def _digest_folder(folder: str, stamp: tuple[tuple[str, int, int], ...]) -> str:
    # `stamp` only invalidates the cache; the digest itself is of names and contents.
    state = hashlib.blake2b(digest_size=16)
    for name, _, _ in stamp:
        state.update(str(Path(name).relative_to(folder)).encode())
        with open(name, "rb") as handle:
            state.update(hashlib.file_digest(handle, hashlib.sha256).digest())
    return state.hexdigest()


def _load(kind: Any, ref: ModelRef, **arguments: Any) -> Any:
    if os.environ.get("RETRIEVAL_KD_QUIET"):  # set by the command line, which has its own bars
        transformers_logging.disable_progress_bar()
    try:
        kind = class_of(ref.location, kind, ref.revision)
        return kind(ref.location, revision=ref.revision, device=best_device(), **arguments)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if ref.is_local:
            raise InputError(
                f"not a model {kind.__name__} can load: {error}", file=ref.location
            ) from error
        if isinstance(error, OSError):
            raise unreachable(ref) from error
        raise InputError(f"not a model {kind.__name__} can load: {error}", id=ref.spec) from error


def load_encoder(
    spec: str, *, max_length: int | None = None, dtype: torch.dtype | None = None
) -> SentenceTransformer:
    """A dense Sentence Transformers model for inference, in the machine's fast dtype by default."""
    ref = resolve_model(spec)
    model = _load(SentenceTransformer, ref, model_kwargs={"dtype": dtype or fast_dtype()})
    return _cut_at(model, max_length, spec)


def load_multi_vector(
    spec: str, *, max_length: int | None = None, dtype: torch.dtype | None = None, seed: int = 0
) -> MultiVectorEncoder:
    """A multi-vector model for inference; of a dense one, the vectors of its tokens.

    These go through a random projection to 128 dimensions, drawn by `seed`: Sentence Transformers
    gives one to every model that has none.
    """
    ref = resolve_model(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _load(MultiVectorEncoder, ref, model_kwargs={"dtype": dtype or fast_dtype()})
    return _cut_at(model, max_length, spec)


def kind_of(spec: str) -> str:
    """What a model was saved as: dense, sparse or multi_vector. All others count as dense."""
    ref = resolve_model(spec)
    found = load_file_path(ref.location, "config_sentence_transformers.json", revision=ref.revision)
    declared = read_json(found).get("model_type") if found else None
    return next((kind for kind, made in KINDS.items() if made.__name__ == declared), "dense")


def load_retriever(
    spec: str, *, max_length: int | None = None, dtype: torch.dtype | None = None
) -> Any:
    """A model of the kind it was saved as, for inference; `load_encoder` loads the dense ones."""
    kind = kind_of(spec)
    if kind == "dense":
        return load_encoder(spec, max_length=max_length, dtype=dtype)
    model = _load(KINDS[kind], resolve_model(spec), model_kwargs={"dtype": dtype or fast_dtype()})
    return _cut_at(model, max_length, spec)


def load_cross_encoder(
    spec: str, *, max_length: int | None = None, dtype: torch.dtype | None = None
) -> CrossEncoder:
    """A one-logit sequence classifier for inference, in the machine's fast dtype by default."""
    ref = resolve_model(spec)
    model = _load(CrossEncoder, ref, num_labels=1, model_kwargs={"dtype": dtype or fast_dtype()})
    return _cut_at(model, max_length, spec)


def is_encoder_decoder(spec: str) -> bool:
    """Whether a model is one such as T5, by its configuration.

    Raises:
        InputError: there is no configuration, here or on the hub.
    """
    return bool(_config(resolve_model(spec)).is_encoder_decoder)


def _config(ref: ModelRef) -> Any:
    base = adapters.base_of(ref.location)
    if base is not None:
        return _config(resolve_model(base))
    try:
        return AutoConfig.from_pretrained(ref.location, revision=ref.revision)
    except (OSError, ValueError) as error:
        if ref.is_local:
            raise InputError(f"not a model: {error}", file=ref.location) from error
        raise unreachable(ref) from error


def load_language_model(spec: str, *, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """A model that writes and its tokenizer, for inference, in the machine's fast dtype by default.

    Decoders, and encoder–decoders such as T5. Of an adapter's folder, its base with the adapter.

    Raises:
        InputError: it is something else, which would be given random output words.
    """
    ref = resolve_model(spec)
    base = adapters.base_of(ref.location)
    if base is not None:
        adapters.need_peft()
        model, tokenizer = load_language_model(base, dtype=dtype)
        return adapters.put_on(model, ref.location, model_digest(base)).get_base_model(), tokenizer
    try:
        config = _config(ref)
        named = getattr(config, "architectures", None) or []
        if named and not any(word in name for name in named for word in WRITES):
            raise InputError(
                f"this is no language model but {', '.join(named)}",
                id=spec,
                remedy="give a causal language model, or score with pointwise:MODEL",
            )
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(
            ref.location, revision=ref.revision, dtype=dtype or fast_dtype()
        )
        tokenizer = AutoTokenizer.from_pretrained(ref.location, revision=ref.revision)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if ref.is_local:
            raise InputError(f"not a language model: {error}", file=ref.location) from error
        raise unreachable(ref) from error
    if not tokenizer.is_fast:
        raise InputError(
            "this tokenizer does not say which characters a token is of",
            id=spec,
            remedy="save the model with a tokenizer.json",
        )
    return model.to(best_device()).eval(), tokenizer


def pair_length(spec: str, max_length: int | None) -> int:
    """Tokens of a (query, document) pair: as asked, else 256 or what a local model has."""
    if max_length is not None:
        return max_length
    ref = resolve_model(spec)
    config = Path(ref.location) / "config.json"
    declared = read_json(config) if ref.is_local and config.exists() else {}
    return min(256, declared.get("max_position_embeddings") or 256)


def _cut_at(model: Any, max_length: int | None, spec: str) -> Any:
    """Set the length texts are cut at, if the model has positions for it."""
    if max_length is not None:
        positions = getattr(model[0].auto_model.config, "max_position_embeddings", None)
        if positions and max_length > positions:
            raise InputError(
                f"model {spec} reads {positions} tokens, not {max_length}",
                remedy=f"set the maximum length to at most {positions}",
            )
        model.max_seq_length = max_length
    return model.eval()
