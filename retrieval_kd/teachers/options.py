"""Options that several kinds of teachers share, and those of cross-encoders.

Options of a single kind are beside its teacher; `kinds.py` says which kind takes which. This file
imports no model library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from retrieval_kd.errors import InputError
from retrieval_kd.schema import Part, Tokens


class NoOptions(Part):
    """Options of teachers that take none."""


class CrossEncoderOptions(Part):
    """Options of `pointwise`."""

    max_length: Tokens | None = Field(None, description="tokens of query and document together")
    layers: int | None = Field(
        None, gt=0, description="score from this layer; for models trained for early exit"
    )
    prompt: str = Field("", description="text before every query")
    backend: Literal["torch", "openvino", "openvino-int8"] | None = Field(
        None, description="what computes; by default $RETRIEVAL_KD_BACKEND, else torch"
    )


class PassageOptions(Part):
    """Options of every teacher that is a language model."""

    prompt: str | None = Field(None, description="name of a template, or a YAML file with one")
    passage_tokens: int = Field(256, gt=0, description="tokens of a passage; the rest is cut off")
    cut: Literal["end", "beginning"] = Field("end", description="which side is cut off")
    layers: int | None = Field(
        None, gt=0, description="answer from this layer; for models trained for early exit"
    )


class SetOptions(PassageOptions):
    """Options of teachers that read several passages at once."""

    passage_tokens: int = Field(128, gt=0, description="tokens of a passage; the rest is cut off")
    query_tokens: int = Field(128, gt=0, description="tokens of a query; the rest is cut off")


def teacher_arguments(options: BaseModel) -> dict[str, Any]:
    """Options as arguments of a teacher. `layers` is left out: it goes to the language model."""
    return options.model_dump(exclude={"layers"})


def refuse_unused(options: BaseModel, choice: str, belongs_to: Mapping[str, str]) -> None:
    """Refuse an explicit option that the chosen strategy would ignore.

    Args:
        choice: the option that chooses the strategy.
        belongs_to: option → the strategy that uses it.
    """
    chosen = getattr(options, choice)
    for name, owner in belongs_to.items():
        if name in options.model_fields_set and chosen != owner:
            raise InputError(
                f"the option {name!r} goes with {choice}={owner}, not with {choice}={chosen}",
                remedy="leave one of them out",
            )
