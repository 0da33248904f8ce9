"""The normal form by which texts are compared, and its shingles and n-grams of words.

It removes more differences than `data.draw_queries.normalise`, which compares queries of one
collection: here texts come from anywhere, with other quotes, widths, hyphens and invisible marks.
"""

from __future__ import annotations

import unicodedata
import zlib
from functools import lru_cache

import numpy as np

SHINGLE = 5  # characters
APOSTROPHES = "'’‘ʼ＇`´"
PART_OF_WORDS = "#%&@"  # punctuation by Unicode, but "c#" is not "c"
UNSPACED = ("CJK ", "HIRAGANA", "KATAKANA", "THAI ", "LAO ", "KHMER", "MYANMAR")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class _Table(dict[int, str | None]):
    """Code point → its replacement, computed on first use."""

    def __missing__(self, code: int) -> str | None:
        self[code] = value = self._find(chr(code))
        return value

    def _find(self, character: str) -> str | None:
        category = unicodedata.category(character)
        if character in APOSTROPHES or category == "Cf":
            return None  # don't = dont; soft hyphens and zero-width marks are invisible
        if character in PART_OF_WORDS:
            return character
        if category[0] in "PZ" or category == "Cc":
            return " "
        if unicodedata.name(character, "").startswith(UNSPACED):
            return f" {character} "  # scripts without spaces: a character is a word
        return character


TABLE = _Table()


def normalise(text: str) -> str:
    r"""Remove differences of case, width, punctuation, spacing and invisible characters.

    NFKC and case folding are repeated until nothing changes. Apostrophes and format characters are
    removed, other punctuation becomes a space, and symbols stay ("c++" is not "c"). Characters of
    scripts without spaces between words (Han, Kana, Thai, …) become words of their own. A text of
    punctuation alone stays as it is, so only a blank text has an empty form.

    Example:
        >>> normalise("  What\u00a0causes the Moon’s “tides”? ")
        'what causes the moons tides'
        >>> normalise("Ｃ＋＋ vs. C#"), normalise("state-of-the-art"), normalise("…?")
        ('c++ vs c#', 'state of the art', '...?')
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    while True:
        form = " ".join(text.translate(TABLE).split())
        if text.isascii():
            break
        form = unicodedata.normalize("NFKC", form).casefold()
        if form == text or form.isascii():
            break
        text = form
    form = " ".join(form.translate(TABLE).split())
    return form or " ".join(text.split())


def words(form: str) -> list[str]:
    """The words of a normalised text."""
    return form.split()


def shingles(form: str) -> np.ndarray:
    """Distinct hashes (s,) uint64, ascending, of a normalised text's runs of five characters.

    A shorter text is a single shingle; only an empty text has none.

    Example:
        >>> len(shingles("tides")), len(shingles("tide")), len(shingles("two tides")), shingles("")
        (1, 1, 5, array([], dtype=uint64))
    """
    codes = np.frombuffer(form.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    if not len(codes):
        return np.zeros(0, np.uint64)
    return np.unique(_windows(codes.astype(np.uint64), min(SHINGLE, len(codes))))


def word_ngrams(form: str, n: int) -> np.ndarray:
    """Distinct hashes (s,) uint64, ascending, of a normalised text's runs of `n` words.

    A text with fewer words has none.

    Example:
        >>> len(word_ngrams("why are there two tides a day", 6)), len(word_ngrams("two tides", 6))
        (2, 0)
    """
    listed = words(form)
    if len(listed) < n:
        return np.zeros(0, np.uint64)
    return np.unique(_windows(_mix(np.array([*map(_hash, listed)], dtype=np.uint64)), n))


@lru_cache(maxsize=65_536)
def _hash(word: str) -> int:
    data = word.encode("utf-8", errors="surrogatepass")
    return zlib.crc32(data) << 32 | zlib.adler32(data)


def _windows(values: np.ndarray, n: int) -> np.ndarray:
    """Hashes of all runs of `n` values: h = (…(v₁ m + v₂) m + …) + vₙ modulo 2⁶⁴, then mixed."""
    size = len(values) - n + 1
    hashes = np.zeros(size, dtype=np.uint64)
    for offset in range(n):
        hashes = hashes * MULTIPLIER + values[offset : offset + size]
    return _mix(hashes)


def _mix(hashes: np.ndarray) -> np.ndarray:
    """MurmurHash3's finaliser: every bit of the result depends on every bit of the value."""
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return hashes ^ (hashes >> np.uint64(33))
