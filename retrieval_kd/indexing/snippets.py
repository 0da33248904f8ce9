"""Search results to read: rank, score, title and a snippet around the query's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retrieval_kd.data.texts import Document
from retrieval_kd.errors import shown

WORD = re.compile(r"\w+")


class ByID(Protocol):
    """Texts of a collection, of an index, or of several."""

    def __getitem__(self, id: str, /) -> Document: ...


@dataclass(frozen=True)
class Snippet:
    """A search result, safe to print on a terminal (without rich markup: texts may contain `[`)."""

    rank: int
    score: float
    document_id: str
    title: str
    text: str


def snippets(
    texts: ByID, hits: Sequence[tuple[str, float]], query: str, *, words: int = 30
) -> list[Snippet]:
    """Return each hit with its title and the `words` words in a row that match the query best."""
    query_words = _content_words(query)
    results = []
    for rank, (document_id, score) in enumerate(hits, start=1):
        document = texts[document_id]
        text = best_window(clean(document.text), query_words, words)
        results.append(Snippet(rank, score, clean(document_id), clean(document.title), text))
    return results


def clean(text: str) -> str:
    """Put a text on one line and remove control characters (terminal escapes, reversed writing).

    Example:
        >>> clean("red \\x1b[31malert\\u202e\\n and more")
        'red [31malert and more'
    """
    return " ".join(shown(text, most=None).split())


def best_window(text: str, query_words: frozenset[str], words: int) -> str:
    """The first stretch of `words` words with the most distinct query words; … where text is cut.

    Example:
        >>> best_window("one two three four five", frozenset({"four"}), 2)
        '… three four …'
    """
    pieces = text.split()
    if len(pieces) <= words:
        return text
    matches = [
        frozenset(w.casefold() for w in WORD.findall(piece)) & query_words for piece in pieces
    ]
    count: dict[str, int] = {}
    best, best_start = -1, 0
    for end, piece in enumerate(matches):
        for word in piece:
            count[word] = count.get(word, 0) + 1
        if end >= words:
            for word in matches[end - words]:
                count[word] -= 1
        distinct = sum(n > 0 for n in count.values())
        if end >= words - 1 and distinct > best:
            best, best_start = distinct, end - words + 1
    cut = " ".join(pieces[best_start : best_start + words])
    before, after = best_start > 0, best_start + words < len(pieces)
    return f"{'… ' if before else ''}{cut}{' …' if after else ''}"


def _content_words(query: str) -> frozenset[str]:
    """The query's words of three or more letters, or all its words if none is that long."""
    words = frozenset(word.casefold() for word in WORD.findall(query))
    return frozenset(word for word in words if len(word) > 2) or words
