"""Which words of a passage matched, and the part of it that shows most of them.

A passage's marks are one weight from 0 to 1 per character, `(characters,)`; 0: did not match.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from retrieval_kd.data.texts import Document
from retrieval_kd.indexing.snippets import clean
from retrieval_kd.models.vectors import sparse_rows
from retrieval_kd.retrieval.analysis import UNSPACED_RUN, Analyzer, split_plain
from retrieval_kd.retrieval.bm25 import DEFAULT

LONGEST = 10_000  # characters of a document that are looked through
WORDS = 45  # words of a passage that are shown
WORD = re.compile(r"\S+")
FAINTEST = 0.25  # share of the strongest match from which a weaker one is marked
MOST_WORDS = 8  # of the matches that are listed


class Match(NamedTuple):
    """A word that matched, as a model's token, and its share of the score."""

    word: str
    score: float


class Matched(NamedTuple):
    """What matched in a passage: its marks, and the strongest matches by score."""

    marks: np.ndarray
    words: list[Match]


class Passage(NamedTuple):
    """A document's title and text on one line each, safe to show."""

    title: str
    text: str

    @classmethod
    def of(cls, document: Document) -> Passage:
        return cls(clean(document.title[:LONGEST]), clean(document.text[:LONGEST]))

    @property
    def full(self) -> str:
        return f"{self.title} {self.text}".strip()

    @property
    def text_start(self) -> int:
        """Where the text begins in `full`."""
        return len(self.title) + bool(self.title)


class QueryTerms:
    """A query's terms as BM25 reads them: without stop words, stemmed.

    Example:
        >>> text = "The barking of dogs."
        >>> marks = QueryTerms("a dog barks").marks(text)
        >>> [piece.text for piece in pieces(text, marks) if piece.weight]
        ['barking', 'dogs']
    """

    def __init__(self, query: str) -> None:
        self._analyzer = Analyzer(DEFAULT.analysis)
        list(self._analyzer.documents([query]))  # its terms are the whole vocabulary
        self._known: dict[str, bool] = {}

    def marks(self, text: str) -> np.ndarray:
        """Mark every word with a term of the query."""
        marks, at = np.zeros(len(text), dtype=np.float32), 0
        for word in split_plain(text):
            start = text.find(word, at)
            if start < 0:  # a bigram of characters that are written differently
                continue
            if word not in self._known:
                self._known[word] = bool(self._analyzer.query(word))
            if self._known[word]:
                marks[start : start + len(word)] = 1
            at = start + (1 if UNSPACED_RUN.match(word) else len(word))  # bigrams overlap
        return marks


class Piece(NamedTuple):
    """A stretch of text whose characters have one weight."""

    text: str
    weight: float


def pieces(text: str, marks: np.ndarray) -> list[Piece]:
    """Cut a text where its marks change.

    Example:
        >>> pieces("a cat", np.array([0, 0, 1, 1, 1]))
        [Piece(text='a ', weight=0.0), Piece(text='cat', weight=1.0)]
    """
    cut, at = [], 0
    for weight, run in itertools.groupby(np.round(marks.astype(np.float64), 2).tolist()):
        end = at + sum(1 for _ in run)
        cut.append(Piece(text[at:end], float(weight)))
        at = end
    return cut


def window(text: str, marks: np.ndarray, words: int = WORDS) -> tuple[int, int]:
    """Return start and end of the first stretch of `words` words with the strongest marks.

    Example:
        >>> text = "one two three four five"
        >>> start, end = window(text, QueryTerms("four").marks(text), 2)
        >>> text[start:end]
        'three four'
    """
    spans = [found.span() for found in WORD.finditer(text)]
    if len(spans) <= words:
        return 0, len(text)
    gains = np.array([marks[start:end].max() for start, end in spans])
    sums = np.convolve(gains, np.ones(words), "valid")  # of each stretch
    best = int(np.argmax(np.round(sums, 4)))
    return spans[best][0], spans[best + words - 1][1]


def sparse_matches(model: Any, query: csr_matrix, text: str, prompt: str | None) -> Matched:
    """Return what a sparse model's query `(1, V)` has in common with a text.

    A word that the model adds to the text is listed, and cannot be marked in it.
    """
    shared = sparse_rows(model, [text], "document", prompt=prompt).multiply(query).tocoo()
    pairs = zip(shared.col.tolist(), shared.data.tolist(), strict=True)
    special = _special(model)
    scores = {word: score for word, score in pairs if word not in special}
    ids, spans = _tokens(model, text, prompt)
    marks = _mark(text, [(span, scores.get(id, 0.0)) for id, span in zip(ids, spans, strict=True)])
    return Matched(marks, _strongest(model, scores))


def token_matches(
    model: Any, query: str, text: str, query_prompt: str | None, prompt: str | None
) -> Matched:
    """Return, for each token of the query, the token of the text that is most like it.

    A token that several tokens of the query are most like has the sum of their scores. Those that
    stand for no text, such as the beginning of a sequence, are left out on both sides.
    """
    [asked] = model.encode_query([query], prompt=query_prompt, output_value=None)
    [read] = model.encode_document([text], prompt=prompt, output_value=None)
    special = _special(model)
    wanted = [row for row, id in _scoring(asked) if id not in special]
    own = dict(_scoring(read))  # row → token
    if not wanted or not own:
        return Matched(np.zeros(len(text), dtype=np.float32), [])
    rows = list(own)
    left = asked["token_embeddings"][wanted].float()  # (q, D)
    right = read["token_embeddings"][rows].float()  # (t, D)
    best = (left @ right.T).max(dim=1)  # (q,)
    total: dict[int, float] = defaultdict(float)  # row → score
    words: dict[int, float] = defaultdict(float)  # token → score
    for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        total[rows[place]] += score
        words[own[rows[place]]] += score
    ids, spans = _tokens(model, text, prompt)
    found = [(spans[row], total[row]) for row in total if row < len(ids) and ids[row] == own[row]]
    named = {word: score for word, score in words.items() if word not in special}
    return Matched(_mark(text, found), _strongest(model, named))


def _special(model: Any) -> set[int]:
    """Return the tokens that stand for no word."""
    return set(model.tokenizer.all_special_ids) if model.tokenizer is not None else set()


def _scoring(features: dict[str, Any]) -> list[tuple[int, int]]:
    """Return row and token of what takes part in scoring an encoded text."""
    ids, mask = features["input_ids"].tolist(), features["attention_mask"].bool().tolist()
    return [(row, id) for row, (id, counts) in enumerate(zip(ids, mask, strict=True)) if counts]


def _strongest(model: Any, scores: Mapping[int, float]) -> list[Match]:
    """Name the tokens with the highest scores."""
    if model.tokenizer is None:
        return []
    best = sorted(scores, key=lambda id: -scores[id])[:MOST_WORDS]
    names = model.tokenizer.convert_ids_to_tokens(best)
    return [Match(clean(str(name)), scores[id]) for name, id in zip(names, best, strict=True)]


def _tokens(model: Any, text: str, prompt: str | None) -> tuple[list[int], list[tuple[int, int]]]:
    """Return a document's token IDs and where each stands in its text; (0, 0): nowhere."""
    tokenizer, length = model.tokenizer, model.max_seq_length
    if tokenizer is None or not tokenizer.is_fast:
        return [], []
    before = model.prompts.get("document") or "" if prompt is None else prompt
    limit = {"truncation": True, "max_length": length} if isinstance(length, int) else {}
    encoded = tokenizer(before + text, return_offsets_mapping=True, **limit)
    places = [[max(0, place - len(before)) for place in pair] for pair in encoded["offset_mapping"]]
    return encoded["input_ids"], [(start, end) for start, end in places]


def _mark(text: str, scored: list[tuple[tuple[int, int], float]]) -> np.ndarray:
    """Mark the tokens by their share of the strongest one's score; faint ones are left out."""
    marks = np.zeros(len(text), dtype=np.float32)
    most = max((score for (start, end), score in scored if end > start), default=0.0)
    for (start, end), score in scored:
        if most > 0 and score >= FAINTEST * most:
            marks[start:end] = np.maximum(marks[start:end], score / most)
    return marks
