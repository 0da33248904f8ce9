"""Prompts of a model whose tokenizer is not known here: as plain text, glued and cut by characters.

With a tokenizer, `rendering.py` does all of this.
"""

from __future__ import annotations

from retrieval_kd.teachers.language_model import Prompt, Side
from retrieval_kd.teachers.rendering import OPENING

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
