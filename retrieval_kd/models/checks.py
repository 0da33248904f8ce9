"""Refuses models whose files are not all there, or were changed after they were saved."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError, log
from retrieval_kd.files import SEAL, damage
from retrieval_kd.models.names import ModelRef

RECORD = "training.json"  # which a training leaves in its model's folder
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model",
                "sentencepiece.bpe.model", "spm.model")  # fmt: skip
LAYER = re.compile(r"(.*?\b(?:layers?|h|blocks?))\.\d+\.")  # the stack that a weight is of
FEWEST = 2  # words of a vocabulary; some tokenizers are born with one
USUAL = 10  # times as many words a model has as its tokenizer, at most


def check_seal(ref: ModelRef) -> None:
    """Refuse a folder that differs from its seal; warn of a trained model that has lost it.

    Raises:
        InputError: a file was changed, cut or deleted after the training had saved it.
    """
    folder = Path(ref.location)
    if (folder / SEAL).is_file():
        problem = damage(folder, None)
        if problem:
            raise about(
                ref,
                f"this model is damaged: {problem}",
                remedy="restore it from a copy or train it again; if you changed it yourself, "
                f"delete its {SEAL}",
            )
    elif (folder / RECORD).is_file():
        _warn_unsealed(folder)


@lru_cache
def _warn_unsealed(folder: Path) -> None:
    log.warning("%s: there is no %s, so damage to this model would not be found", folder, SEAL)


def check_weights(ref: ModelRef, model: Any, info: Any, new_head: bool) -> None:
    """Refuse a model of which some weights are missing, or have another shape."""
    missing = set(info["missing_keys"])
    if model.base_model is model:  # no pooling of ours reads BERT's pooler
        missing = {name for name in missing if not name.startswith("pooler.")}
    elif new_head:
        inside = f"{model.base_model_prefix}."
        missing = {n for n in missing if n.startswith(inside) and ".pooler." not in n}
    wrong = sorted(missing | {name for name, *_ in info["mismatched_keys"]})
    if wrong:
        rest = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise about(
            ref,
            f"its files have no weights that fit {wrong[0]}{rest} of {type(model).__name__}: they "
            "would be drawn at random",
            remedy="save or download the model again, or use it as what it is",
        )


def check_layers(ref: ModelRef, model: Any, info: Any) -> None:
    """Refuse a model with weights of more layers than its configuration has, or with no layer."""
    own = {found[1] for name in model.state_dict() if (found := LAYER.match(name))}
    unused = [
        name
        for name in sorted(info["unexpected_keys"])
        if (found := LAYER.match(name))
        and any(found[1].endswith(stack) or stack.endswith(found[1]) for stack in own)
    ]
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", 1)
    if unused or layers < 1:
        problem = f"its config.json has {layers} layers"
        raise about(
            ref,
            f"{problem}, and its weights have more, such as {unused[0]}" if unused else problem,
            remedy="put num_hidden_layers back; to use some of the layers, name them in `layers`",
        )


def check_padding(ref: ModelRef, tokenizer: Any) -> None:
    """Refuse a tokenizer that cannot make a batch of texts."""
    if tokenizer.pad_token is None:
        raise about(
            ref,
            "its tokenizer has no padding token, so texts of different lengths make no batch",
            remedy="set tokenizer.pad_token and the configuration's pad_token_id, and save both",
        )


def check_vocabulary(ref: ModelRef, tokenizer: Any, config: Any = None) -> None:
    """Refuse a tokenizer that knows no word; warn of one that may be another model's.

    transformers makes one of special tokens alone if the files have no vocabulary.
    """
    special = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    known = len({*tokenizer.get_vocab()} - special)
    words = getattr(config.get_text_config(), "vocab_size", None) if config is not None else None
    if known >= FEWEST:
        if known < (words or 0) / USUAL:
            told = (
                "%s: its tokenizer knows %s words of the %s of the model; check that it is its own"
            )
            log.warning(told, ref.spec, f"{known:,}", f"{words:,}")
        return
    lacks = ref.is_local and not any((Path(ref.location) / name).is_file() for name in VOCABULARIES)
    missing = ": tokenizer.json is missing" if lacks else ""
    of = f" of the {words:,} of the model" if words else ""
    raise about(
        ref,
        f"its tokenizer knows {known} words{of}{missing}",
        remedy="put the tokenizer's files (tokenizer.json, or vocab.txt, …) back, or save or "
        "download the model again",
    )


def check_offsets(ref: ModelRef, tokenizer: Any, *, remedy: str) -> None:
    """Refuse a tokenizer that does not map tokens to characters, as none without a fast form does.

    Where transformers knows a fast form, it has made it by itself.
    """
    if not tokenizer.is_fast:
        raise about(
            ref,
            f"its tokenizer, {type(tokenizer).__name__}, is none that a tokenizer.json describes, "
            "and does not map tokens to characters",
            remedy=remedy,
        )


@contextlib.contextmanager
def report_held() -> Iterator[None]:
    """Keep transformers' table of missing weights back, for good where the block raises."""
    library, held = logging.getLogger("transformers.modeling_utils"), []

    def hold(record: logging.LogRecord) -> bool:
        is_report = "LOAD REPORT" in record.getMessage()
        held.extend([record] * is_report)
        return not is_report

    library.addFilter(hold)
    try:
        yield
    finally:
        library.removeFilter(hold)
    for record in held:
        library.handle(record)


def about(ref: ModelRef, problem: str, *, remedy: str) -> InputError:
    """Return a mistake in a model's files, which names its folder or its name on the hub."""
    if ref.is_local:
        return InputError(problem, file=ref.location, remedy=remedy)
    return InputError(problem, id=ref.spec, remedy=remedy)
