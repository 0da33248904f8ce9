"""How reports write numbers, and how they clean text from collections."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any

UNKNOWN = "–"
TEXT_LIMIT = 1_000  # characters of any one text
# control characters, surrogates, non-characters, and marks that reverse the reading direction
HOSTILE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    r"""Remove invisible and harmful characters, and cut the text to `limit` characters.

    Example:
        >>> clean("a\x00b\u202ec  d" + "x" * 9, limit=9)
        'abc  dxx…'
        >>> clean("\ud83d is half of a pair")
        ' is half of a pair'
    """
    text = HOSTILE.sub("", text[: 4 * limit].replace("\r", "\n"))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def one_line(text: str, limit: int) -> str:
    r"""Clean a text and put it on one line with single spaces; narrow spaces in numbers stay.

    Example:
        >>> one_line("22.7\u202fM  of\n30", 99)
        '22.7\u202fM of 30'
    """
    return clean(re.sub(r"[ \t\r\n\f\v]+", " ", text).strip(), limit)


def clean_all(value: Any, limit: int = TEXT_LIMIT) -> Any:
    """Clean every text in a structure of dataclasses, dicts, lists and tuples."""
    if isinstance(value, str):
        return clean(value, limit)
    if is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: clean_all(getattr(value, f.name), limit) for f in fields(value)}
        return replace(value, **changes)
    if isinstance(value, dict):
        return {clean_all(k, limit): clean_all(v, limit) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(clean_all(v, limit) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(clean_all(v, limit) for v in value)
    return value


def score(value: float | None) -> str:
    """Write a measure's mean with three decimals."""
    return UNKNOWN if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Write a difference with its sign: `+0.021`, `−0.004`."""
    return UNKNOWN if value is None else f"{value:+.3f}".replace("-", "−")


def count(value: float | None) -> str:
    """Write a whole number with thin spaces between thousands."""
    return UNKNOWN if value is None else f"{value:,.0f}".replace(",", "\u202f")


def scaled(value: float | None) -> str:
    """Write three significant digits and a prefix.

    Example:
        >>> [scaled(x).replace("\u202f", " ") for x in (22_713_216, 15_300)]
        ['22.7 M', '15.3 k']
    """
    if value is None:
        return UNKNOWN
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{_digits(value / size)}\u202f{prefix}"
    return _digits(value)


def _digits(value: float) -> str:
    """Write about three significant digits: 0.51, 15.3, 120; an int stays whole."""
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return str(value) if isinstance(value, int) else f"{value:.{decimals}f}"


def number(value: float | None) -> str:
    """Write a rate or a latency with about three significant digits."""
    return UNKNOWN if value is None else count(value) if value >= 1000 else _digits(value)


def duration(seconds: float | None) -> str:
    """Write seconds in the units that people use.

    Example:
        >>> [duration(x) for x in (4.2, 75, 7260)]
        ['4 s', '1 min 15 s', '2 h 1 min']
    """
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def unbroken(text: str) -> str:
    """Prevent a line break inside "p < .001"."""
    return re.sub(r"p ([<=>]) (\.)", "p\u00a0\\1\u00a0\\2", text)


def flat(settings: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings to (dotted name, value) pairs.

    Example:
        >>> flat({"student": {"layers": [0, 2], "seed": 1}})
        [('student.layers', '[0, 2]'), ('student.seed', '1')]
    """
    if isinstance(settings, dict) and settings:
        return [
            pair
            for key, value in settings.items()
            for pair in flat(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, UNKNOWN if settings is None else str(settings))]
