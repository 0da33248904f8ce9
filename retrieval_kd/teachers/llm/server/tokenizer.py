"""The tokenizer of a model on a server, or rules of thumb without one, and spellings of tokens."""

from __future__ import annotations

from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.llm.protocol import Prompt, Side
from retrieval_kd.teachers.llm.rendering import OPENING, Renderer

SPACE = "▁"  # begins a word in SentencePiece tokenizers


def open_renderer(spec: str) -> Renderer:
    """Open the tokenizer of the model with this name or folder.

    Raises:
        InputError: it has no tokenizer.
    """
    from transformers import AutoTokenizer

    from retrieval_kd.models.load import resolve_model

    ref = resolve_model(spec)
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.location, revision=ref.revision)
    except (OSError, ValueError) as error:
        raise InputError(f"no tokenizer there: {error}", id=spec) from error
    return Renderer(tokenizer, None, spec)  # the server knows how much the model reads


def described(renderer: Renderer) -> str:
    """Everything in a tokenizer that changes the model's input."""
    tokenizer = renderer.tokenizer
    return f"{tokenizer.backend_tokenizer.to_str()} {tokenizer.chat_template}"


def spelt(tokenizer: Any, token: int) -> tuple[str, str]:
    """A token's text with its leading space, and as servers may spell it.

    The two differ where a tokenizer marks spaces by ▁ (Llama 2, Mistral): decoding a single token
    drops its space as if it began the whole text, here and on some servers.
    """
    decoded = tokenizer.decode([token])
    marked = tokenizer.convert_ids_to_tokens(token).startswith(SPACE)
    spaced = f" {decoded}" if marked and not decoded[:1].isspace() else decoded
    return spaced, decoded


CHARACTERS = 4  # per token, about right for English in most tokenizers


def as_text(prompt: Prompt) -> str:
    """Join the parts of a prompt for a model without a chat template.

    Example:
        >>> as_text(Prompt("Query: tides", system="You judge.", start="Relevant:"))
        'You judge.\\nQuery: tides Relevant:'
    """
    text = "\n".join(part for part in (prompt.system, prompt.user) if part)
    space = " " if prompt.start and not prompt.start[0].isspace() else ""
    return text + space + prompt.start


def glue(text: str) -> str:
    """What separates a text from its continuation: a space after a word, else nothing."""
    return "" if not text or text[-1].isspace() or text[-1] in OPENING else " "


def cut(text: str, most_tokens: int, side: Side) -> str:
    """Cut a text between words to the length of `most_tokens` tokens of average size.

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
