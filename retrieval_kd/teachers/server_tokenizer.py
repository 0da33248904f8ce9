"""The tokenizer, here, of a model that is on a server: opening it, and how servers spell tokens."""

from __future__ import annotations

from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.models import resolve_model
from retrieval_kd.teachers.rendering import Renderer

SPACE = "▁"  # begins a word in tokenizers that are SentencePiece's


def open_renderer(spec: str) -> Renderer:
    """For prompts of the model of this name or folder.

    Raises:
        InputError: there is no tokenizer.
    """
    from transformers import AutoTokenizer

    ref = resolve_model(spec)
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.location, revision=ref.revision)
    except (OSError, ValueError) as error:
        raise InputError(f"no tokenizer there: {error}", id=spec) from error
    return Renderer(tokenizer, None, spec)  # how much the model reads is the server's to say


def described(renderer: Renderer) -> str:
    """Everything of a tokenizer that changes what a model is given."""
    tokenizer = renderer.tokenizer
    return f"{tokenizer.backend_tokenizer.to_str()} {tokenizer.chat_template}"


def spelt(tokenizer: Any, token: int) -> tuple[str, str]:
    """A token's text, with the space it begins with, and as servers may spell it.

    These two differ where a tokenizer marks spaces by ▁ (Llama 2, Mistral): decoded alone, a
    token's space is taken for that of the whole text, and left out, here and by some servers.
    """
    decoded = tokenizer.decode([token])
    marked = tokenizer.convert_ids_to_tokens(token).startswith(SPACE)
    spaced = f" {decoded}" if marked and not decoded[:1].isspace() else decoded
    return spaced, decoded
