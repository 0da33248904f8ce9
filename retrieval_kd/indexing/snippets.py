"""Search results for people: rank, score, title and a snippet around the query's words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from retrieval_kd.data.texts import Texts

WORD = re.compile(r"\w+")
JOINERS = "\u200c\u200d"  # part of the spelling in Persian, Hindi and emoji


@dataclass(frozen=True)
class Shown:
    """One result, safe to print on a terminal. Print it without markup: `[` may be in the text."""

    rank: int
    score: float
    document_id: str
    title: str
    snippet: str


def snippets(
    texts: Texts, hits: Sequence[tuple[str, float]], query: str, *, words: int = 30
) -> list[Shown]:
    """Each hit with its title and the `words` words in a row with most of the query's words."""
    wanted = _content_words(query)
    shown = []
    for rank, (document_id, score) in enumerate(hits, start=1):
        document = texts[document_id]
        snippet = best_window(clean(document.text), wanted, words)
        shown.append(Shown(rank, score, clean(document_id), clean(document.title), snippet))
    return shown


def clean(text: str) -> str:
    """Text on one line, without control characters: no terminal escapes, no reversed writing.

    Example:
        >>> clean("red \\x1b[31malert\\u202e\\n and more")
        'red [31malert and more'
    """
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Zl", "Zp") or character in "\t\n\r\v\f":
            kept.append(" ")
        elif category[0] != "C" or character in JOINERS:
            kept.append(character)
    return " ".join("".join(kept).split())


def best_window(text: str, wanted: frozenset[str], words: int) -> str:
    """The first stretch of `words` words with the most different wanted ones; … where text is cut.

    Example:
        >>> best_window("one two three four five", frozenset({"four"}), 2)
        '… three four …'
    """
    pieces = text.split()
    if len(pieces) <= words:
        return text
    found = [frozenset(w.casefold() for w in WORD.findall(piece)) & wanted for piece in pieces]
    count: dict[str, int] = {}
    best, best_start = -1, 0
    for end, piece in enumerate(found):
        for word in piece:
            count[word] = count.get(word, 0) + 1
        if end >= words:
            for word in found[end - words]:
                count[word] -= 1
        distinct = sum(n > 0 for n in count.values())
        if end >= words - 1 and distinct > best:
            best, best_start = distinct, end - words + 1
    cut = " ".join(pieces[best_start : best_start + words])
    before, after = best_start > 0, best_start + words < len(pieces)
    return f"{'… ' if before else ''}{cut}{' …' if after else ''}"


def _content_words(query: str) -> frozenset[str]:
    """The query's words of three letters or more, or all of them if none is that long."""
    found = frozenset(word.casefold() for word in WORD.findall(query))
    return frozenset(word for word in found if len(word) > 2) or found
