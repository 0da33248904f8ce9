"""Turns texts into BM25 terms: lower case, words, stop words, stems.

Words are runs of letters, digits and their combining marks, in any script. Characters of scripts
that are written without spaces between words (and of Korean, whose words carry particles) become
overlapping bigrams instead, wherever they stand, as Lucene's CJKAnalyzer makes them.
"""

from __future__ import annotations

import itertools
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

VERSION = 2
"""Raised when a text becomes other terms: part of the keys of BM25's indexes, runs and scores."""

UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai, without its digits and signs, like those below
    "\u0e81-\u0ece\u0edc-\u0edf"  # Lao
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d"  # Burmese
    "\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f"
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u3005-\u3007\u3021-\u3029\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U00020000-\U0003ffff"
    "\u3041-\u3096\u3099\u309a\u309d-\u309f\U0001b000-\U0001b16f"  # Hiragana
    "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Katakana
    "\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7fb\uffa0-\uffdc"  # Hangul
)
"""The letters and marks of scripts that are cut into bigrams, as in a regular expression's [ ]."""
SHAPES = "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # they choose how the character before looks
UNSPACED_RUN = re.compile(f"[{UNSPACED}][{UNSPACED}{SHAPES}]*")


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
        language = "EN" if self.stemmer in ("porter", "english") else self.stemmer.upper()
        return list(getattr(lists, f"STOPWORDS_{language}", ()))


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
    return _split(text, _patterns()[0])


def split_standard(text: str) -> list[str]:
    """Split into words nearly as UAX 29 does, without English possessives.

    Example:
        >>> split_standard("Crohn's, vitamin C, 5-HT2A, 1.5 and U.S.A.")
        ['Crohn', 'vitamin', 'C', '5', 'HT2A', '1.5', 'and', 'U.S.A']
    """
    return [w.removesuffix("'s").removesuffix("’s") for w in _split(text, _patterns()[1])]


def _split(text: str, words: re.Pattern[str]) -> list[str]:
    """Find the words of a text, and the bigrams of its runs of unspaced characters."""
    if text.isascii():
        return words.findall(text)
    found, start = [], 0
    for run in UNSPACED_RUN.finditer(text):
        found += words.findall(text, start, run.start()) + bigrams(run[0])
        start = run.end()
    return found + words.findall(text, start)


def bigrams(run: str) -> list[str]:
    """Cut a run of characters, each with its marks, into overlapping pairs; one alone stays.

    Wide, narrow, composed and decomposed forms of a character are the same term.

    Example:
        >>> bigrams("東京都"), bigrams("猫"), bigrams("ﾊﾟﾝ")
        (['東京', '京都'], ['猫'], ['パン'])
    """
    letters: list[str] = []
    for character in unicodedata.normalize("NFKC", re.sub(f"[{SHAPES}]", "", run)):
        if letters and unicodedata.category(character)[0] == "M":
            letters[-1] += character
        else:
            letters.append(character)
    return [a + b for a, b in itertools.pairwise(letters)] or letters


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
