"""The exception for wrong input, the count of what was left out, and texts made safe to print."""

from __future__ import annotations

import base64
import difflib
import html
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import numpy as np

log = logging.getLogger("retrieval_kd")

KEY = "RETRIEVAL_KD_API_KEY"  # the environment variable with a server's key
SECRETS = (KEY, "OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
SHORTEST_SECRET = 8  # characters; a shorter one ("none", "ollama") is a word, and no secret
SHORTEST_WORD = 12  # characters of a part of a key that has only letters, as words have
LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}  # keeps the length
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
    """Mask the keys in the environment, and parts of them, wherever they stand in a text.

    A part has `SHORTEST_SECRET` characters or more of a key, as it is or encoded for an address,
    JSON, HTML or as base64.
    """
    size = SHORTEST_SECRET
    for key in {os.environ.get(name, "").strip() for name in SECRETS}:
        if len(key) < size or len(text) < size:
            continue
        parts, lower = _parts(key), text.translate(LOWER)
        found = [at for at in range(len(text) - size + 1) if lower[at : at + size] in parts]
        for start, end in reversed(_joined(found, size)):
            run = lower[start:end]
            if not run.isalpha() or len(run) >= SHORTEST_WORD or key.translate(LOWER) in run:
                text = f"{text[:start]}***{text[end:]}"
    return text


def _joined(found: list[int], size: int) -> list[tuple[int, int]]:
    """Join windows of this size that overlap or touch: (start, end) of each run."""
    runs: list[tuple[int, int]] = []
    for at in found:
        start = runs.pop()[0] if runs and at <= runs[-1][1] else at
        runs.append((start, at + size))
    return runs


@lru_cache(maxsize=16)
def _parts(key: str) -> frozenset[str]:
    """All parts of a key of `SHORTEST_SECRET` characters, in every encoding, in lower case."""
    written = json.dumps(key)[1:-1]
    escaped = "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in key)
    forms = [key, quote(key), quote(key, safe=""), written, written.replace("/", "\\/"), escaped]
    forms += [html.escape(key), key.encode(errors="replace").hex(), " ".join(key)]
    forms.append(quote(quote(key, safe=""), safe=""))  # an address within an address
    for before in range(3):  # bytes in front, such as of "Bearer " or "user:"
        data = b"\0" * before + key.encode(errors="replace")
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = len(data) % 3 == 0  # else bytes behind may change the last character
            packed = encode(data).decode().rstrip("=")
            forms.append(packed[-(-before * 8 // 6) : None if whole else -1])
    size = SHORTEST_SECRET
    return frozenset(
        form[at : at + size].translate(LOWER)
        for form in forms
        for at in range(len(form) - size + 1)
    )


def _cut(text: str, most: int) -> str:
    end = most // 4
    return text if len(text) <= most else f"{text[: most - end - 1]}…{text[-end:]}"


def kind_of(value: object) -> str:
    """Name the kind of a JSON value, for messages."""
    names = {bool: "true or false", dict: "an object", list: "a list", str: "a text"}
    return "null" if value is None else names.get(type(value), "a number")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Ask for the known word that is nearest to a misspelt one; empty if none is near.

    Example:
        >>> did_you_mean("residul", ["dense", "residual"]), did_you_mean("x", ["dense"])
        ("did you mean 'residual'?", '')
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


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

    def add_all(self, counts: Mapping[str, np.ndarray], examples: Sequence[str]) -> None:
        """Add counts (n,) of reasons, one for each example, as if example by example.

        Example:
            >>> drops = Drops()
            >>> drops.add_all({"late": np.array([0, 2]), "empty": np.array([1, 1])}, ["a", "b"])
            >>> drops.summary()
            ['2 × empty (first: a)', '2 × late (first: b)']
        """
        some = {reason: count for reason, count in counts.items() if count.any()}
        first = {reason: int(np.flatnonzero(count)[0]) for reason, count in some.items()}
        for reason in sorted(some, key=first.__getitem__):  # equal ones stay in order
            self.add(reason, examples[first[reason]], int(some[reason].sum()))

    def summary(self) -> list[str]:
        first = {why: shown(example, LONGEST_ID) for why, example in self.first.items()}
        return [shown(f"{n} × {why} (first: {first[why]})") for why, n in self.counts.items()]

    def warn(self, what: str) -> None:
        """Log one warning per reason, each with its count."""
        for entry in self.summary():
            log.warning("%s: %s", what, entry)
