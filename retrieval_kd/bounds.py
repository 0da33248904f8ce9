"""The bounds of numbers, for options of commands and settings of configurations alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

LARGEST = 2**31 - 1  # of whole numbers: more does not fit what libraries count and seed with

Count = Annotated[int, Field(ge=0)]
Depth = Annotated[int, Field(ge=1, le=1_000_000_000)]  # documents per query
Dimensions = Annotated[int, Field(ge=1, le=65_536)]  # of a vector
Layer = Annotated[int, Field(ge=0)]  # counted from 0
Price = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(gt=0)]
Tokens = Annotated[int, Field(ge=8, le=1_000_000)]  # that a text or pair is cut to
Weight = Annotated[float, Field(ge=0)]


def check_size(value: Any) -> Any:
    """Refuse whole numbers that no library can compute with, in lists and mappings too.

    Example:
        >>> check_size([1, 2**40])
        Traceback (most recent call last):
        ...
        ValueError: Input should be between -2147483647 and 2147483647
    """
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"Input should be between {-LARGEST} and {LARGEST}")
    if isinstance(value, Mapping):
        check_size(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            check_size(item)
    return value


def check(kind: Any, value: Any, of: str = "") -> None:
    """Refuse a value that is not of a type with bounds.

    Example:
        >>> check(Tokens, 0, "max_length: ")
        Traceback (most recent call last):
        ...
        ValueError: max_length: Input should be greater than or equal to 8, not 0

    Raises:
        ValueError: saying what it should be.
    """
    sized = Annotated[kind, AfterValidator(check_size)]
    try:
        TypeAdapter(sized, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{of}{problem}, not {first['input']}") from error


def check_weights(weights: Sequence[float], of: str = "") -> None:
    """Refuse weights that are none, and weights with which no teacher counts.

    Raises:
        ValueError: saying what weights must be.
    """
    if not all(weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(f"{of}weights must not be negative, and one must be above 0")
