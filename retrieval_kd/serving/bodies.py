"""What requests and responses of the JSON API hold, with types, bounds and meanings."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retrieval_kd.serving.settings import (
    LARGEST_REQUEST,
    LONGEST_PREFIX,
    LONGEST_QUERY,
    MOST_HITS,
)

Milliseconds = Annotated[float, Field(description="milliseconds")]


class SearchRequest(BaseModel):
    """A search. Types are not converted: `"5"` is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str = Field(
        min_length=1, max_length=LONGEST_QUERY, description="the question, in characters"
    )
    k: int = Field(default=10, ge=1, le=MOST_HITS, description="documents of each list")
    systems: list[Annotated[str, Field(max_length=1_000)]] | None = Field(
        default=None, min_length=1, max_length=32, description="names of systems; null: all"
    )
    prefix: str = Field(
        default="",
        max_length=LONGEST_PREFIX,
        description="find only documents whose ID begins with this",
    )
    rerank: bool = Field(default=False, description="have the teacher re-rank the first documents")
    highlight: bool = Field(default=False, description="mark what matched")

    @field_validator("query", "prefix")
    @classmethod
    def _text(cls, text: str) -> str:
        bad = next((c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\n\r"), None)
        if bad is not None:
            raise ValueError(f"a control character, U+{ord(bad):04X}: leave it out")
        return text

    @field_validator("query")
    @classmethod
    def _words(cls, query: str) -> str:
        if not query.strip():
            raise ValueError("only spaces: write a question")
        return query


class PieceModel(BaseModel):
    text: str
    weight: float = Field(description="0: did not match; 1: matched best")


class WordModel(BaseModel):
    word: str = Field(description="a token of the model's vocabulary")
    score: float = Field(description="what it adds to the score")


class HitModel(BaseModel):
    rank: int
    id: str
    score: float = Field(description="the system's; scores of different systems do not compare")
    teacher: float | None = Field(description="the teacher's score, if it re-ranked this document")
    rank_before: int = Field(description="the system's own rank, before the teacher")
    title: str
    text: str = Field(description="the part of the passage that matches best")
    title_marks: list[PieceModel]
    text_marks: list[PieceModel] = Field(description="the text in pieces; empty without highlight")
    words: list[WordModel] = Field(description="the model's words that matched best")


class ListModel(BaseModel):
    system: str
    encode_ms: Milliseconds
    search_ms: Milliseconds
    complete: bool = Field(
        description="false: documents with the prefix may be missing, as only the best 10,000 were "
        "looked through, or fewer where the index is approximate"
    )
    hits: list[HitModel]


class SearchResult(BaseModel):
    lists: list[ListModel]
    reranked: int = Field(description="documents that the teacher read")
    teacher_ms: Milliseconds
    marks_ms: Milliseconds


class SystemModel(BaseModel):
    name: str
    kind: str = Field(description="dense, sparse, multi_vector, bm25 or hybrid")
    about: str


class About(BaseModel):
    """What can be searched, and the bounds of a search."""

    collection: str
    documents: int
    systems: list[SystemModel]
    teacher: str | None
    rerank: int = Field(description="documents of each list that the teacher re-ranks")
    longest_query: int
    longest_prefix: int
    most_hits: int


class Ready(BaseModel):
    ready: bool


class Problem(BaseModel):
    """Why a request was not answered, in one sentence."""

    detail: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    told = {
        400: "the body is not JSON, or not UTF-8",
        413: f"the request is larger than {LARGEST_REQUEST} bytes",
        422: "a value has the wrong type or is out of its bounds",
        500: "the search failed; the server's log says why",
        503: "not ready yet, or at work on as many searches as it takes; try again",
    }
    return {
        status: {"description": told[status], "content": {"text/plain": {}}}
        if status == 413  # FastAPI's own answer
        else {"description": told[status], "model": Problem}
        for status in statuses
    }
