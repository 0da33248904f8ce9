"""A dense model on a server with OpenAI's `/embeddings`: the similarity of the two vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.files import cache_dir, digest_json
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.teachers.hosted.answers import VECTORS
from retrieval_kd.teachers.hosted.options import Cutter, HostedOptions, halves, in_batches
from retrieval_kd.teachers.hosted.vector_cache import VectorCache
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.responses import Json

SIDES = ("query", "document")
SideText = tuple[str, str]  # "query" or "document", a text with its prompt


class EmbeddingOptions(HostedOptions):
    """Options of `dense:server`."""

    query_prompt: str = Field("", description="text before every query, such as `query: `")
    document_prompt: str = Field("", description="text before every document")
    dimensions: int | None = Field(
        None, gt=0, description="numbers of a vector; of models trained to be cut"
    )
    input_type: str | None = Field(
        None, description="field of that name: its value for queries and for documents, as A,B"
    )
    task: str | None = Field(None, description="the same for a field named task, as Jina has it")
    similarity: Literal["cosine", "dot"] = Field(
        "cosine", description="of the vectors; dot where the model was trained so"
    )

    @field_validator("input_type", "task")
    @classmethod
    def _is_pair(cls, value: str | None) -> str | None:
        if value is not None and (value.count(",") != 1 or not all(value.split(","))):
            raise ValueError("give two values: that of queries, a comma, that of documents")
        return value

    def fields(self, side: str) -> Json:
        """The fields of a request that change its vectors.

        Example:
            >>> EmbeddingOptions(input_type="search_query,search_document").fields("document")
            {'input_type': 'search_document'}
        """
        pairs = {"input_type": self.input_type, "task": self.task}
        fields: Json = {
            name: value.split(",")[SIDES.index(side)] for name, value in pairs.items() if value
        }
        return fields | ({"dimensions": self.dimensions} if self.dimensions else {})


class EmbeddingTeacher:
    """Scores pairs by the vectors of a server's model.

    Every vector is cached as soon as it has come, by model, fields of the request and text, so that
    no text is sent twice. A pair one of whose vectors is missing has no score.

    Args:
        name: the model's name on the server.
        open_calls: opens the calls of the server; they are sent when they are needed.

    Attributes:
        asks_again: whether queries are sent though their vectors are cached, to measure latency.
    """

    asks_again = False

    def __init__(
        self, name: str, options: EmbeddingOptions, open_calls: Callable[[], Calls]
    ) -> None:
        self.name, self.options, self.calls = name, options, open_calls()
        self._cutter = Cutter(self.calls.settings, options.passage_tokens)

    @cached_property
    def key(self) -> TeacherKey:
        options = self.options
        about = options.model_dump(exclude={"passage_tokens"}, exclude_defaults=True)
        return TeacherKey(
            kind="pointwise",
            model=f"dense:server:{self.name}",
            digest=digest_json(["dense server", self.name, about, self._cutter.described]),
            max_length=options.passage_tokens,
        )

    def score(self, queries: Sequence[str], documents: Sequence[Document]) -> np.ma.MaskedArray:
        """Cosine or dot product (n,) float32 of n pairs.

        Masked where a vector is missing, or the product is too large for 32 bits.

        Raises:
            InputError: the server answers no request, or its vectors are not what was asked for.
            Stopped: a limit was reached in an earlier batch.
        """
        texts = self._cutter.cut([document.full for document in documents])
        left = [("query", self.options.query_prompt + query) for query in queries]
        right = [("document", self.options.document_prompt + text) for text in texts]
        vectors = self._vectors([*left, *right])
        scores = np.ma.masked_all(len(queries), dtype=np.float32)
        with np.errstate(over="ignore"):
            for row, (one, other) in enumerate(zip(left, right, strict=True)):
                if one in vectors and other in vectors:
                    scores[row] = vectors[one] @ vectors[other]
        return np.ma.masked_invalid(scores)  # products too large for 32 bits

    def _vectors(self, texts: Sequence[SideText]) -> dict[SideText, np.ndarray]:
        """The vectors (D,) of these texts, of unit length for cosine; some may be missing."""
        known = self._cached([t for t in texts if not (self.asks_again and t[0] == "query")])
        new = [text for text in dict.fromkeys(texts) if text not in known]
        sides = ([text for text in new if text[0] == side] for side in SIDES)
        batches = [part for own in sides for part in in_batches(own, self.calls.settings.batch)]
        while batches:
            bodies = [self._body(batch) for batch in batches]
            batch_of = {id(body): batch for body, batch in zip(bodies, batches, strict=True)}

            def keep(body: Json, answer: Json, batch_of: Any = batch_of) -> None:
                batch, vectors = batch_of[id(body)], answer["vectors"]
                self._check_width(vectors.shape[1])
                self._cache.add([self._cache_key(text) for text in batch], vectors)
                known.update(zip(batch, vectors, strict=True))

            self.calls.query("/embeddings", bodies, form=VECTORS, keep=keep)
            batches = halves(batches, bodies, self.calls)
        from retrieval_kd.models.vectors import warn_of_zeros  # loads torch

        for side in SIDES:
            zeros = [not vector.any() for text, vector in known.items() if text[0] == side]
            warn_of_zeros(self, np.array(zeros), side)
        if self.options.similarity == "cosine":
            known = {text: _unit(vector) for text, vector in known.items()}
        return known

    def _body(self, batch: Sequence[SideText]) -> Json:
        fields = self.options.fields(batch[0][0])
        texts = [text for _, text in batch]
        return {"model": self.name, "encoding_format": "float", **fields, "input": texts}

    @cached_property
    def _cache(self) -> VectorCache:
        about: Json = {"model": self.name, "revision": self.options.revision}
        about["dimensions"] = self.options.dimensions
        return VectorCache(cache_dir() / "server-vectors" / digest_json([1, about]), about)

    def _cached(self, texts: Sequence[SideText]) -> dict[SideText, np.ndarray]:
        keys = {text: self._cache_key(text) for text in texts}
        found = self._cache.find(list(keys.values()))
        return {text: found[key] for text, key in keys.items() if key in found}

    def _cache_key(self, text: SideText) -> str:
        """What is sent of a text: itself, and fields that depend on its side."""
        return json.dumps([self.options.fields(text[0]), text[1]])

    def _check_width(self, width: int) -> None:
        if self.options.dimensions not in (None, width):
            raise InputError(
                f"the server gives vectors of {width} numbers where {self.options.dimensions} were "
                "asked for",
                id=self.name,
                remedy="leave ?dimensions= out: this server or model cannot cut them",
            )


def _unit(vector: np.ndarray) -> np.ndarray:
    """The vector (D,) at length 1; in 64 bits, where the squares of 32-bit numbers fit."""
    exact = vector.astype(np.float64)
    return (exact / (np.linalg.norm(exact) or 1.0)).astype(np.float32)
