"""Loads models by name, and computes the digests that key their scores and indexes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
)
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
from sentence_transformers.util import load_file_path
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from retrieval_kd.errors import InputError
from retrieval_kd.files import SEAL, digest_text, read_json
from retrieval_kd.hardware import best_device, fast_dtype
from retrieval_kd.models import lora
from retrieval_kd.models.checks import (
    about,
    check_layers,
    check_offsets,
    check_padding,
    check_seal,
    check_vocabulary,
    check_weights,
    report_held,
)
from retrieval_kd.models.modules import class_of
from retrieval_kd.models.modules.asymmetric import DIGEST
from retrieval_kd.models.names import ModelRef, hub_commit, resolve_model, unreachable

KINDS: dict[str, Any] = {
    "dense": SentenceTransformer,
    "sparse": SparseEncoder,
    "multi_vector": MultiVectorEncoder,
}
MOST = 300  # characters of a library's reason
WEIGHT_FILES = (".safetensors", ".bin", ".json", ".txt", ".model")
LANGUAGE_MODELS = (
    "ForCausalLM",
    "LMHeadModel",
    "ForConditionalGeneration",
    "EncoderDecoderModel",
)
# model types whose positions are counted from the padding token's number on
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
SENTENCE_CONFIG, MODULES = "config_sentence_transformers.json", "modules.json"
TRAINING, IMITATES = "training.json", "imitates"  # a training's record, and its key: MODEL → digest
IGNORED = {TRAINING, SEAL}  # a record with times: equal weights keep equal digests


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


def document_digest(spec: str) -> str:
    """Digest of what makes a model's document vectors: of an asymmetric student, its base's.

    Vectors and indexes of documents are kept under it, and are the same for both models.
    """
    return str(declared(spec, SENTENCE_CONFIG).get(DIGEST) or model_digest(spec))


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
    kind: Any,
    spec: str,
    max_length: int | None,
    dtype: torch.dtype | None,
    *,
    new_head: bool = False,
    **options: Any,
) -> Any:
    """Load a Sentence Transformers model for inference that cuts texts to `max_length` tokens."""
    ref = resolve_model(spec)
    if kind is not CrossEncoder:
        _check_encoder(spec)
    if os.environ.get("RETRIEVAL_KD_QUIET"):  # set by the command line, which has its own bars
        transformers_logging.disable_progress_bar()
    with opening(ref, f"model {kind.__name__} can load", new_head=new_head):
        kind = class_of(ref.location, kind, ref.revision)
        model = kind(
            ref.location,
            revision=ref.revision,
            device=best_device(),
            model_kwargs={"dtype": dtype or fast_dtype()},
            **options,
        )
    # Static embeddings have no transformer and read whole texts; a router may have several.
    for module in model.modules():
        if isinstance(module, Transformer):
            if module.tokenizer is not None:
                check_padding(ref, module.tokenizer)
                check_vocabulary(ref, module.tokenizer, module.auto_model.config)
            if max_length is not None:
                _set_length(ref, module, max_length)
        elif isinstance(module, SparseStaticEmbedding):
            module.max_seq_length = None  # it reads whole texts, whatever the model's own length
    return model.eval()


@contextlib.contextmanager
def opening(ref: ModelRef, noun: str, *, new_head: bool = False) -> Iterator[None]:
    """Report whatever libraries raise while they open a model as one mistake in its files.

    Weights that the files lack are a mistake too: transformers would draw them at random. A folder
    that differs from its seal is refused before anything is read.

    Args:
        noun: what the model should be.
        new_head: whether a model without a head may get a new one.
    """
    check_seal(ref)
    library: Any = PreTrainedModel
    own = library.__dict__["from_pretrained"]

    def from_pretrained(
        cls: Any, *places: Any, output_loading_info: bool = False, **more: Any
    ) -> Any:
        with report_held():
            model, info = own.__func__(
                cls, *places, output_loading_info=True, **{**more, "ignore_mismatched_sizes": True}
            )
            check_weights(ref, model, info, new_head)
            check_layers(ref, model, info)
        return (model, info) if output_loading_info else model

    library.from_pretrained = classmethod(from_pretrained)
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # files can be wrong in any way, and libraries raise many kinds
        raise _not_loadable(ref, noun, error) from error
    finally:
        library.from_pretrained = own


def _set_length(ref: ModelRef, module: Any, max_length: int) -> None:
    _check_length(ref, module.auto_model.config, max_length)
    module.max_seq_length = max_length


def check_length(spec: str, max_length: int | None) -> None:
    """Refuse more tokens than a model has positions, by its configuration alone."""
    config = config_of(spec)
    if config is not None and max_length is not None:
        _check_length(resolve_model(spec), config, max_length)


def _check_length(ref: ModelRef, config: Any, max_length: int) -> None:
    if max_length < 1:
        raise InputError(f"texts cannot be cut to {max_length} tokens", remedy="give at least 8")
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in AFTER_PADDING:
        positions -= config.pad_token_id + 1
    if positions and max_length > positions:
        raise InputError(
            f"model {ref.spec} reads {positions} tokens, not {max_length}",
            remedy=f"set the maximum length to at most {positions}",
        )


def _not_loadable(ref: ModelRef, noun: str, error: Exception) -> InputError:
    if not ref.is_local and isinstance(error, OSError):
        return unreachable(ref)
    reason = " ".join(str(error).split())
    if not isinstance(error, OSError | ValueError | RuntimeError):
        reason = f"{type(error).__name__}: {reason}"
    remedy = ""
    if isinstance(error, UnpicklingError):
        remedy = "convert its weights to safetensors; a pickle may run any code"
    return about(ref, f"not a {noun}: {reason[:MOST]}", remedy=remedy)


def declared(spec: str, name: str = "config.json") -> Any:
    """Read a JSON file of a model, here or on the hub; {} if it has none."""
    ref = resolve_model(spec)
    try:
        path = load_file_path(ref.location, name, revision=ref.revision)
    except Exception as error:  # the hub raises many kinds of errors
        raise unreachable(ref) from error
    with opening(ref, "model"):
        kind = list if name == MODULES else dict
        return read_json(path, kind=kind) if path else kind()


def is_cross_encoder(spec: str) -> bool:
    """Whether a model was saved as a cross-encoder, or is a plain classifier of sequences."""
    saved = declared(spec, SENTENCE_CONFIG).get("model_type")
    if saved is not None or declared(spec, MODULES):
        return saved == "CrossEncoder"
    return "SequenceClassification" in str(declared(spec).get("architectures"))


def is_transformer(spec: str) -> bool:
    """Whether a model begins with a transformer, and not with static embeddings or a router."""
    modules = declared(spec, MODULES)
    return not modules or "Transformer'" in str(modules[0])  # {…, 'type': '….Transformer'}


def _check_encoder(spec: str) -> None:
    if is_cross_encoder(spec):
        raise InputError(
            f"{spec} is a cross-encoder: it has no vectors",
            remedy="give an encoder, or score candidates with it: rkd score --teacher MODEL",
        )


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
    """The kind a model was saved as: dense, sparse or multi_vector; all others count as dense.

    Raises:
        InputError: it is a cross-encoder.
    """
    _check_encoder(spec)
    saved = declared(spec, SENTENCE_CONFIG).get("model_type")
    return next((kind for kind, type_ in KINDS.items() if type_.__name__ == saved), "dense")


def may_be_splade(spec: str) -> bool:
    """Whether a model is a plain transformer with its word head, as many SPLADE models are saved.

    Nothing in its files tells it from an encoder as it was before any training; who names it knows.
    """
    return not declared(spec, MODULES) and "MaskedLM" in str(declared(spec).get("architectures"))


def is_static(spec: str) -> bool:
    """Whether a model is a table of token vectors."""
    modules = declared(spec, MODULES)
    return bool(modules) and str(dict(modules[0]).get("type")).endswith("StaticEmbedding")


def load_retriever(
    spec: str,
    *,
    max_length: int | None = None,
    dtype: torch.dtype | None = None,
    kind: str | None = None,
) -> Any:
    """Load a dense, sparse or multi-vector model for inference, as the kind it was saved as, or
    as `kind`.
    """
    return _load(KINDS[kind or kind_of(spec)], spec, max_length, dtype)


def load_cross_encoder(
    spec: str,
    *,
    max_length: int | None = None,
    dtype: torch.dtype | None = None,
    new_head: bool = False,
) -> CrossEncoder:
    """Load a sequence classifier with one logit for inference.

    Args:
        new_head: give an encoder without a head a new one, from torch's generator. By default it
            is refused.
    """
    return _load(CrossEncoder, spec, max_length, dtype, new_head=new_head, num_labels=1)


def is_encoder_decoder(spec: str) -> bool:
    """Whether a model is an encoder–decoder such as T5, by its configuration."""
    return bool(_config(resolve_model(spec)).is_encoder_decoder)


def _config(ref: ModelRef) -> Any:
    base = lora.base_of(ref.location)
    if base is not None:
        return _config(resolve_model(base))
    with opening(ref, "model"):
        return AutoConfig.from_pretrained(ref.location, revision=ref.revision)


def config_of(spec: str) -> Any:
    """Read the configuration of a transformer; None for a model that does not begin with one."""
    return _config(resolve_model(spec)) if is_transformer(spec) and declared(spec) else None


def load_language_model(spec: str, *, dtype: torch.dtype | None = None) -> tuple[Any, Any]:
    """Load a decoder, or an encoder–decoder such as T5, and its tokenizer, for inference.

    An adapter's folder loads its base with the adapter.

    Raises:
        InputError: it is a different kind of model, whose output layer would be random.
    """
    ref = resolve_model(spec)
    base = lora.base_of(ref.location)
    if base is not None:
        check_seal(ref)
        lora.need_peft()
        model, tokenizer = load_language_model(base, dtype=dtype)
        adapted = lora.load_adapters(model, ref.location, model_digest(base))
        return adapted.get_base_model(), tokenizer
    with opening(ref, "language model"):
        config = _config(ref)
        names = getattr(config, "architectures", None) or []
        if names and not any(word in name for name in names for word in LANGUAGE_MODELS):
            raise InputError(
                f"this is not a language model but {', '.join(names)}",
                id=spec,
                remedy="give a causal language model, or score with pointwise:MODEL",
            )
        tokenizer = AutoTokenizer.from_pretrained(ref.location, revision=ref.revision)
        check_vocabulary(ref, tokenizer, config)
        check_offsets(
            ref,
            tokenizer,
            remedy="give a model of another kind, such as T5 for ByT5, or have a server run this "
            "one (--server URL)",
        )
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(
            ref.location, revision=ref.revision, dtype=dtype or fast_dtype()
        )
    return model.to(best_device()).eval(), tokenizer


def pair_length(spec: str, max_length: int | None) -> int:
    """Tokens per (query, document) pair; default: 256, or fewer if a local model has fewer."""
    if max_length is not None:
        return max_length
    return min(256, declared(spec).get("max_position_embeddings") or 256)
