"""The configuration of a student before its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_kd.schema import Dimensions, Layer, Part, Tokens, as_value_error, validate
from retrieval_kd.students.options import RE_RANKS, SEARCHED_AS, TABLES, Query
from retrieval_kd.students.options import check_options as check_student


class LayerChoice(Part):
    """Layers that are chosen by trying subsets of the base's, before any training."""

    keep: int = Field(ge=1, description="number of layers to keep")
    choose: Literal["dev"] = Field(
        "dev",
        description="those that rank best, by nDCG@10 on at most 100 dev queries and about 500 "
        "documents; all subsets are tried, or 40 around the evenly spaced one",
    )


class Student(Part):
    """The student before training; `students` may change its settings."""

    kind: Literal[
        "dense",
        "sparse",
        "multi_vector",
        "multi_function",
        "interaction",
        "cross_encoder",
        "static",
        "residual",
        "asymmetric",
        "adapter",
    ] = Field(
        "dense",
        description="dense: one vector per text; sparse: a weight per word of the vocabulary; "
        "multi_vector: a vector per token; multi_function: all three of one encoder; interaction: "
        "a dense one with a head that scores two vectors; cross_encoder: no vectors, re-ranks what "
        "the first stage found; static: the sum of its words' vectors, no transformer; residual: "
        "the base's frozen vector and a sketch of the words; asymmetric: queries without a "
        "transformer over the base's own document vectors; adapter: a linear map of those vectors",
    )
    base: str = Field(description="MODEL to make the student from")
    start: str | None = Field(
        None,
        description="another student of this file to make this one from, in place of `base`: the "
        "one with the same seed",
    )
    layers: list[Layer] | LayerChoice | None = Field(
        None,
        description="layers to keep, counted from 0; by default all. {keep: 3, choose: dev}: the "
        "best 3 on dev queries",
    )
    max_length: Tokens = Field(256, description="of a document when encoding (tokens)")
    query: Query = Field(
        None,
        description="idf: queries of a sparse student are a table of word weights, IDF in the "
        "documents, and no transformer reads them; by default one model reads both",
    )
    dimensions: Dimensions | None = Field(
        None,
        description="size of a dense student's vectors (by default the encoder's; another one adds "
        "a linear map, saved with it), or of each token's vector in a multi_vector student (by "
        "default 128 at most), a multi_function student (by default the encoder's), a static or a "
        "residual student (by default 1024), or an adapter's (by default the encoder's)",
    )
    options: dict[str, Any] = Field(
        {},
        description="of the kind. sparse: top_k (words), activation (relu, log1p_relu). "
        "multi_function: lexical (own, vocabulary), weights (of dense, sparse, multi), main "
        "(dense, integrated). interaction: head (dse, iem), hidden (dimensions), attention_heads. "
        "static: saturate (a document's words as BM25 does). residual: train_vectors. adapter: "
        "rank (of the change), start (pca, whitening, half_whitening of the documents' vectors)",
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _choice(cls, value: object) -> object:
        if isinstance(value, Mapping):
            as_value_error(validate, LayerChoice, value)
        return value

    @model_validator(mode="after")
    def _check(self) -> Student:
        as_value_error(check_student, self.kind, self.dimensions, self.options, self.query)
        if self.kind in TABLES and self.layers is not None:
            raise ValueError(f"a {self.kind} student has no layers to keep: set `layers: null`")
        if self.kind in RE_RANKS and self.chooses_layers:
            raise ValueError(f"layers: a {self.kind} student is not tried on dev: name them")
        return self

    @property
    def chooses_layers(self) -> bool:
        """Whether dev queries decide which layers are kept."""
        return isinstance(self.layers, LayerChoice)

    @property
    def searched_as(self) -> str:
        """The kind of index that holds its vectors."""
        return SEARCHED_AS.get(self.kind, self.kind)

    def cache_key(self) -> Any:
        """Return all settings but `base` and `start`.

        A model is identified by its digest, so moving its folder changes nothing, and another
        student by its training's key.
        """
        return self.model_dump(mode="json", exclude={"base", "start"})


def check_layer_choice(student: Student, has_dev: bool) -> None:
    """Refuse to choose layers on dev queries that there are none of."""
    if student.chooses_layers and not has_dev:
        raise ValueError("layers are chosen on dev queries: set a dev split, or name the layers")
