"""Numbers in files: finite, in ASCII digits, and of a size that can be computed with.

Python's `int` and `float` also read `1_0`, Arabic digits and `infinity`, which no file means.
"""

from __future__ import annotations

import math
import numbers
import re
from decimal import Decimal
from typing import Any

WHOLE = re.compile(r"-?[0-9]+(\.0*)?")
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
MOST = 2**31 - 1


def whole_number(value: Any) -> int | None:
    """Return a whole number, given as a number or as its text; None if it is none, or too big.

    Example:
        >>> [whole_number(value) for value in ("2", "-1", 1.0, "1.0")]
        [2, -1, 1, 1]
        >>> [whole_number(value) for value in ("1_0", "٣", 0.5, True, "9" * 99)]
        [None, None, None, None, None]
    """
    if isinstance(value, str) and not WHOLE.fullmatch(value):
        return None
    number = finite_number(value)
    return (
        int(number) if number is not None and number.is_integer() and abs(number) <= MOST else None
    )


def finite_number(value: Any) -> float | None:
    """Return a finite number, given as a number or as its text; None if it is none.

    Example:
        >>> [finite_number(value) for value in ("-3.5", 2, "1e3")]
        [-3.5, 2.0, 1000.0]
        >>> [finite_number(value) for value in ("1e999", "nan", 10**999, True, None)]
        [None, None, None, None, None]
    """
    is_text = isinstance(value, str) and DECIMAL.fullmatch(value)
    if isinstance(value, bool) or not (is_text or isinstance(value, numbers.Real | Decimal)):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None
