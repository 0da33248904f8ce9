"""The exception for wrong input, the record of what was dropped, and what of a text is shown."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger("retrieval_kd")

KEY = "RETRIEVAL_KD_API_KEY"  # the environment variable with a server's key
SECRETS = (KEY, "OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST_SECRET = 8  # characters; a shorter one ("none", "ollama") is a word, and no secret
LONGEST_TEXT, LONGEST_WORD, LONGEST_ID = 4_000, 300, 120  # characters that are shown
JOINERS = "\u200c\u200d"  # part of the spelling in Persian, Hindi and emoji


def shown(text: str, most: int | None = LONGEST_TEXT) -> str:
    """Return a text as one line that is safe to print: every foreign text leaves through here.

    Control characters (terminal escapes, reversed writing, half characters) are removed, the keys
    in the environment masked, very long texts and words cut in the middle. `most` is the number of
    characters to keep; None cuts nothing.

    Example:
        >>> shown("red \\x1b[31malert\\u202e\\n")
        'red [31malert '
        >>> shown("abcdefghijkl", most=6)
        'abcd…l'
    """
    text = without_secrets(str(text))
    if not text.isprintable():
        kept = (c if c.isprintable() or c in JOINERS else " " * c.isspace() for c in text)
        text = without_secrets("".join(kept))  # a key may have been split by what is gone
    if most is None:
        return text
    text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _cut(word[0], LONGEST_WORD), text)
    return _cut(text, most)


def without_secrets(text: str) -> str:
    """Mask the keys in the environment, wherever they stand in a text."""
    for key in {os.environ.get(name, "").strip() for name in SECRETS}:
        if len(key) >= SHORTEST_SECRET:
            text = re.sub(re.escape(key), "***", text, flags=re.IGNORECASE)
    return text


def _cut(text: str, most: int) -> str:
    end = most // 4
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


class InputError(Exception):
    """A mistake in the user's input; the command line prints it without a traceback.

    Example:
        >>> str(InputError("duplicate document ID", file="corpus.jsonl", line=7, id="d1",
        ...                remedy="keep one of the two lines"))
        'corpus.jsonl:7: duplicate document ID (id d1). To fix: keep one of the two lines.'
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        id: str | None = None,
        remedy: str = "",
    ) -> None:
        self.problem, self.file, self.line, self.id, self.remedy = problem, file, line, id, remedy
        where = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        who = "" if id is None else f" (id {shown(str(id), LONGEST_ID)})"
        end = "" if remedy.endswith((".", "?")) else "."
        fix = f" To fix: {remedy}{end}" if remedy else ""
        super().__init__(shown(f"{where}{problem}{who}{'.' if fix else ''}{fix}"))


@dataclass
class Drops:
    """Counts of what was left out and why, with the first example of each reason.

    Example:
        >>> drops = Drops(); drops.add("empty document", "d3"); drops.add("empty document", "d9")
        >>> drops.summary()
        ['2 × empty document (first: d3)']
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str, count: int = 1) -> None:
        self.counts[reason] += count
        self.first.setdefault(reason, example)

    def summary(self) -> list[str]:
        first = {why: shown(example, LONGEST_ID) for why, example in self.first.items()}
        return [shown(f"{n} × {why} (first: {first[why]})") for why, n in self.counts.items()]

    def warn(self, what: str) -> None:
        """Log one warning per reason, each with its count."""
        for entry in self.summary():
            log.warning("%s: %s", what, entry)
