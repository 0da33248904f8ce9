"""Loads models by name, and computes the digests that key their scores and indexes."""

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
from retrieval_kd.files import SEAL, digest_text, read_json
from retrieval_kd.hardware import best_device, fast_dtype
from retrieval_kd.models import lora
from retrieval_kd.models.modules import class_of
from retrieval_kd.models.names import ModelRef, hub_commit, resolve_model, unreachable

KINDS: dict[str, Any] = {
    "dense": SentenceTransformer,
    "sparse": SparseEncoder,
    "multi_vector": MultiVectorEncoder,
}
WEIGHT_FILES = (".safetensors", ".bin", ".json", ".txt", ".model")
LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
IGNORED = {"training.json", SEAL}  # a record with times: equal weights keep equal digests


def model_digest(spec: str) -> str:
    """Digest a local model's weights, configuration and tokenizer, or a hub name and its commit.

    Folders with the same content have the same digest, 32 hex digits. An adapter's digest covers
    its base too.
    """
    ref = resolve_model(spec)
    if not ref.is_local:
        return digest_text("hub", ref.location, hub_commit(ref))
    files = sorted(
        p
        for p in Path(ref.location).rglob("*")
        if p.suffix in WEIGHT_FILES and p.name not in IGNORED
    )
    base = lora.base_of(ref.location)
    if base is not None:
        files = [p for p in files if p.name not in (lora.CONFIG, lora.BASE)]
        own = lora.config_digest(ref.location), _digest_files(ref.location, files)
        return digest_text("adapter", *own, model_digest(base))
    return _digest_files(ref.location, files)


def _digest_files(folder: str, files: list[Path]) -> str:
    stamp = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    return _digest_folder(folder, stamp)


@lru_cache(maxsize=64)
def _digest_folder(folder: str, stamp: tuple[tuple[str, int, int], ...]) -> str:
    # sizes and times in `stamp` only invalidate the cache; the digest is of names and contents
    state = hashlib.blake2b(digest_size=16)
    for name, _, _ in stamp:
        state.update(str(Path(name).relative_to(folder)).encode())
        with open(name, "rb") as handle:
            state.update(hashlib.file_digest(handle, hashlib.sha256).digest())
    return state.hexdigest()


def _load(
    kind: Any, spec: str, max_length: int | None, dtype: torch.dtype | None, **options: Any
) -> Any:
    """Load a Sentence Transformers model for inference that cuts texts to `max_length` tokens."""
    ref = resolve_model(spec)
    if os.environ.get("RETRIEVAL_KD_QUIET"):  # set by the command line, which has its own bars
        transformers_logging.disable_progress_bar()
    try:
        kind = class_of(ref.location, kind, ref.revision)
        model = kind(
            ref.location,
            revision=ref.revision,
            device=best_device(),
            model_kwargs={"dtype": dtype or fast_dtype()},
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _not_loadable(ref, f"model {kind.__name__} can load", error) from error
    if max_length is not None:
        positions = getattr(model[0].auto_model.config, "max_position_embeddings", None)
        if positions and max_length > positions:
            raise InputError(
                f"model {spec} reads {positions} tokens, not {max_length}",
                remedy=f"set the maximum length to at most {positions}",
            )
        model.max_seq_length = max_length
    return model.eval()


def _not_loadable(ref: ModelRef, noun: str, error: Exception) -> InputError:
    if ref.is_local:
        return InputError(f"not a {noun}: {error}", file=ref.location)
    if isinstance(error, OSError):
        return unreachable(ref)
    return InputError(f"not a {noun}: {error}", id=ref.spec)


def load_encoder(
    spec: str, *, max_length: int | None = None, dtype: torch.dtype | None = None
) -> SentenceTransformer:
    """Load a dense model for inference, by default in the machine's fast dtype."""
    return _load(SentenceTransformer, spec, max_length, dtype)


def load_multi_vector(
    spec: str, *, max_length: int | None = None, dtype: torch.dtype | None = None, seed: int = 0
) -> MultiVectorEncoder:
    """Load a multi-vector model for inference.

    A dense model is turned into one: Sentence Transformers adds a random projection of its token
    vectors to 128 dimensions, which is drawn with `seed`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _load(MultiVectorEncoder, spec, max_length, dtype)


def kind_of(spec: str) -> str:
    """The kind a model was saved as: dense, sparse or multi_vector; all others count as dense."""
    ref = resolve_model(spec)
    path = load_file_path(ref.location, "config_sentence_transformers.json", revision=ref.revision)
    declared = read_json(path).get("model_type") if path else None
    return next((kind for kind, type_ in KINDS.items() if type_.__name__ == declared), "dense")


def load_retriever(
    spec: str, *, max_length: int | None = None, dtype: torch.dtype | None = None
) -> Any:
    """Load a dense, sparse or multi-vector model for inference, as the kind it was saved as."""
    return _load(KINDS[kind_of(spec)], spec, max_length, dtype)


def load_cross_encoder(
    spec: str, *, max_length: int | None = None, dtype: torch.dtype | None = None
) -> CrossEncoder:
    """Load a sequence classifier with one logit for inference."""
    return _load(CrossEncoder, spec, max_length, dtype, num_labels=1)


def is_encoder_decoder(spec: str) -> bool:
    """Whether a model is an encoder–decoder such as T5, by its configuration.

    Raises:
        InputError: it has no configuration, here or on the hub.
    """
    return bool(_config(resolve_model(spec)).is_encoder_decoder)


def _config(ref: ModelRef) -> Any:
    base = lora.base_of(ref.location)
    if base is not None:
        return _config(resolve_model(base))
    try:
        return AutoConfig.from_pretrained(ref.location, revision=ref.revision)
    except (OSError, ValueError) as error:
        raise _not_loadable(ref, "model", error) from error


def load_language_model(spec: str, *, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Load a decoder, or an encoder–decoder such as T5, and its tokenizer, for inference.

    An adapter's folder loads its base with the adapter.

    Raises:
        InputError: it is a different kind of model, whose output layer would be random.
    """
    ref = resolve_model(spec)
    base = lora.base_of(ref.location)
    if base is not None:
        lora.need_peft()
        model, tokenizer = load_language_model(base, dtype=dtype)
        adapted = lora.load_adapters(model, ref.location, model_digest(base))
        return adapted.get_base_model(), tokenizer
    try:
        config = _config(ref)
        names = getattr(config, "architectures", None) or []
        if names and not any(word in name for name in names for word in LANGUAGE_MODELS):
            raise InputError(
                f"this is not a language model but {', '.join(names)}",
                id=spec,
                remedy="give a causal language model, or score with pointwise:MODEL",
            )
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(
            ref.location, revision=ref.revision, dtype=dtype or fast_dtype()
        )
        tokenizer = AutoTokenizer.from_pretrained(ref.location, revision=ref.revision)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _not_loadable(ref, "language model", error) from error
    if not tokenizer.is_fast:
        raise InputError(
            "this tokenizer does not map tokens to characters",
            id=spec,
            remedy="save the model with a tokenizer.json",
        )
    return model.to(best_device()).eval(), tokenizer


def pair_length(spec: str, max_length: int | None) -> int:
    """Tokens per (query, document) pair; default: 256, or fewer if a local model has fewer."""
    if max_length is not None:
        return max_length
    ref = resolve_model(spec)
    config = Path(ref.location) / "config.json"
    declared = read_json(config) if ref.is_local and config.exists() else {}
    return min(256, declared.get("max_position_embeddings") or 256)
