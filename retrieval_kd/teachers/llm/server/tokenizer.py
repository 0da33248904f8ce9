"""The tokenizer, here, of a model that is on a server: opening it, and how servers spell tokens."""

from __future__ import annotations

from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.models.load import resolve_model
from retrieval_kd.teachers.llm.protocol import Prompt, Side
from retrieval_kd.teachers.llm.rendering import OPENING, Renderer

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


CHARACTERS = 4  # of a token, where nothing better is known: English in most tokenizers


def as_text(prompt: Prompt) -> str:
    """A prompt for a model without a chat format: its parts one after another.

    Example:
        >>> as_text(Prompt("Query: tides", system="You judge.", start="Relevant:"))
        'You judge.\\nQuery: tides Relevant:'
    """
    text = "\n".join(part for part in (prompt.system, prompt.user) if part)
    space = " " if prompt.start and not prompt.start[0].isspace() else ""
    return text + space + prompt.start


def glue(text: str) -> str:
    """What stands between a prompt and what comes next: a space, where a word has just ended."""
    return "" if not text or text[-1].isspace() or text[-1] in OPENING else " "


def cut(text: str, most_tokens: int, side: Side) -> str:
    """A text cut between words to what so many tokens may hold.

    Example:
        >>> cut("violin chord tempo", 3, "end"), cut("violin chord tempo", 3, "beginning")
        ('violin chord', 'chord tempo')
    """
    most = most_tokens * CHARACTERS
    if len(text) <= most:
        return text
    if side == "end":
        kept = text[: most + 1]
        return (kept.rpartition(" ")[0] or kept[:most]).rstrip()
    kept = text[len(text) - most - 1 :]
    return (kept.partition(" ")[2] or kept[1:]).lstrip()
