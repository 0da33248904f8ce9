"""Turns texts into BM25 terms: lower case, words, stop words, stems.

Words are runs of letters, digits and their combining marks, in any script. Languages written
without spaces (Chinese, Japanese, Thai) yield one word per run: segment such texts first.
"""

from __future__ import annotations

import re
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal

import Stemmer
from bm25s import stopwords as lists
from bm25s.tokenization import Tokenizer
from pydantic import BaseModel, ConfigDict, Field

from retrieval_kd.errors import InputError

LUCENE_STOP_WORDS = (  # noqa: SIM905
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
).split()
"""The 33 words of Lucene's EnglishAnalyzer."""

BM25S_STOP_WORDS = {
    "english": lists.STOPWORDS_EN,
    "german": lists.STOPWORDS_GERMAN,
    "dutch": lists.STOPWORDS_DUTCH,
    "french": lists.STOPWORDS_FRENCH,
    "spanish": lists.STOPWORDS_SPANISH,
    "portuguese": lists.STOPWORDS_PORTUGUESE,
    "italian": lists.STOPWORDS_ITALIAN,
    "russian": lists.STOPWORDS_RUSSIAN,
    "swedish": lists.STOPWORDS_SWEDISH,
    "norwegian": lists.STOPWORDS_NORWEGIAN,
    "turkish": lists.STOPWORDS_TURKISH,
    "danish": lists.STOPWORDS_DANISH,
}


class Analysis(BaseModel):
    """How documents and queries become terms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stemmer: str = Field(
        default="english", description="PyStemmer algorithm (english, porter, german, …), or none"
    )
    stop_words: Literal["bm25s", "lucene", "none"] = Field(
        default="bm25s",
        description="bm25s's list for the stemmer's language, Lucene's 33 English words, or none",
    )
    words: Literal["plain", "standard"] = Field(
        default="plain",
        description=(
            "plain: runs of two or more letters and digits, as bm25s; standard: nearly Lucene's "
            "StandardTokenizer (also 1.5, U.S.A and single letters; a final 's is cut)"
        ),
    )

    def stop_list(self) -> list[str]:
        if self.stop_words == "none":
            return []
        if self.stop_words == "lucene":
            return LUCENE_STOP_WORDS
        language = "english" if self.stemmer == "porter" else self.stemmer
        return list(BM25S_STOP_WORDS.get(language, ()))


class Analyzer:
    """Turns texts into term IDs. Documents extend its vocabulary; queries do not.

    Safe to use from several threads (PyStemmer itself is not thread-safe).

    Example:
        >>> analyzer = Analyzer(Analysis())
        >>> [list(ids) for ids in analyzer.documents(["The dogs bark", "a dog barked"])]
        [[0, 1], [0, 1]]
        >>> sorted(analyzer.vocabulary)
        ['bark', 'dog']
        >>> analyzer.query("Dogs & unicorns")
        [0]
    """

    def __init__(self, analysis: Analysis, vocabulary: dict[str, int] | None = None) -> None:
        stem = None if analysis.stemmer == "none" else _stemmer(analysis.stemmer).stemWord
        self._tokenizer = Tokenizer(
            splitter=split_plain if analysis.words == "plain" else split_standard,
            stopwords=analysis.stop_list(),
            stemmer=stem,
        )
        self._lock = threading.Lock()
        if vocabulary is not None and stem is None:
            self._tokenizer.word_to_id = vocabulary
        elif vocabulary is not None:
            self._tokenizer.stem_to_sid = vocabulary

    @property
    def vocabulary(self) -> dict[str, int]:
        """Term → ID, from 0."""
        return self._tokenizer.get_vocab_dict()

    def documents(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Yield each text's term IDs; new terms join the vocabulary."""
        yield from self._tokenizer.streaming_tokenize(
            texts,  # type: ignore[arg-type]
            update_vocab=True,
            allow_empty=False,
        )

    def query(self, text: str) -> list[int]:
        """Return a query's term IDs, with repetitions, without terms outside the vocabulary."""
        with self._lock:
            stream = self._tokenizer.streaming_tokenize(
                [text], update_vocab=False, allow_empty=False
            )
            return next(iter(stream))


def split_plain(text: str) -> list[str]:
    """Split into words of at least two characters.

    Example:
        >>> split_plain("Vitamin C, 5-HT2A, 1.5 and हिन्दी")
        ['Vitamin', 'HT2A', 'and', 'हिन्दी']
    """
    return _patterns()[0].findall(text)


def split_standard(text: str) -> list[str]:
    """Split into words nearly as UAX 29 does, without English possessives.

    Example:
        >>> split_standard("Crohn's, vitamin C, 5-HT2A, 1.5 and U.S.A.")
        ['Crohn', 'vitamin', 'C', '5', 'HT2A', '1.5', 'and', 'U.S.A']
    """
    return [w.removesuffix("'s").removesuffix("’s") for w in _patterns()[1].findall(text)]


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Python's `\\w` lacks combining marks, so it would split Arabic and Hindi words at them."""
    marks = "".join(
        c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "M"
    )
    inner, letter = rf"[\w{marks}]", rf"[^\W\d_{marks}]"
    joined = rf"(?<={letter})[.:'’·](?={letter})|(?<=\d)[.,;'’](?=\d)"
    return re.compile(rf"\w{inner}+"), re.compile(rf"\w(?:{inner}|{joined})*")


def _stemmer(name: str) -> Stemmer.Stemmer:
    algorithms = Stemmer.algorithms()
    if name not in algorithms:
        raise InputError(
            f"no stemmer for {name!r}", remedy=f"use one of: none, {', '.join(sorted(algorithms))}"
        )
    return Stemmer.Stemmer(name)
