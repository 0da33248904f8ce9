"""Reads and checks the answers of `/embeddings` and `/rerank`.

An answer that cannot be true (a number that is not finite, an index given twice, vectors of two
lengths) raises ValueError: it is garbled, and the call is repeated.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from retrieval_kd.errors import shown
from retrieval_kd.teachers.llm.server.checks import Form
from retrieval_kd.teachers.llm.server.responses import Json

LARGEST = float(np.finfo(np.float32).max)


def _vectors(answer: Any, request: Json) -> Json:
    """`{"vectors": (n, D) float32}` in the order of the request's texts.

    Example:
        >>> data = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": "AACAPwAAAAA="}]
        >>> _vectors({"data": data}, {"input": ["a", "b"]})["vectors"].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        >>> _vectors({"data": data[:1]}, {"input": ["a", "b"]})
        Traceback (most recent call last):
        ValueError: 1 vectors for 2 texts
    """
    data, wanted = _list(answer, "data"), len(request["input"])
    if len(data) != wanted:
        raise ValueError(f"{len(data)} vectors for {wanted} texts")
    rows = {_index(item, place, wanted): _vector(item) for place, item in enumerate(data)}
    if len(rows) < wanted:
        raise ValueError("an index comes twice")
    if len({row.shape for row in rows.values()}) > 1:
        raise ValueError("vectors of different lengths")
    return {"vectors": np.stack([rows[index] for index in range(wanted)])}


def _scores(answer: Any, request: Json) -> Json:
    """`{"results": [{"index": i, "relevance_score": s}, …]}`, without any other field.

    TEI's own form is also read: a bare list, with `score` in place of `relevance_score`. A document
    may lack a result; its score is then missing.

    Example:
        >>> _scores([{"index": 1, "score": 0.5, "text": "b"}], {"texts": ["a", "b"]})
        {'results': [{'index': 1, 'relevance_score': 0.5}]}
        >>> _scores({"results": [{"index": 2, "relevance_score": 1}]}, {"documents": ["a", "b"]})
        Traceback (most recent call last):
        ValueError: 2 is not the index of one of 2 texts
    """
    wanted = len(request.get("documents") or request["texts"])
    results = answer if isinstance(answer, list) else _list(answer, "results")
    scores: dict[int, float] = {}
    for item in results:
        index = _index(item, None, wanted)
        if index in scores:
            raise ValueError("an index comes twice")
        scores[index] = _number(item.get("relevance_score", item.get("score")))
    if not scores:
        raise ValueError("there is no score in them")
    ranked = sorted(scores.items())
    return {"results": [{"index": index, "relevance_score": score} for index, score in ranked]}


VECTORS = Form(lambda response: response, _vectors)
SCORES = Form(lambda response: response, _scores)


def scores_in(answer: Json, count: int) -> np.ndarray:
    """The scores (count,) in an answer; NaN where a document has none."""
    scores = np.full(count, np.nan, dtype=np.float32)
    for result in answer["results"]:
        scores[result["index"]] = result["relevance_score"]
    return scores


def _list(answer: Any, name: str) -> list[Any]:
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise ValueError(f"there is no list of {name} in them")
    return found


def _index(item: Any, place: int | None, wanted: int) -> int:
    """The index of a result; by default its place, if it has one."""
    index = item.get("index", place) if isinstance(item, dict) else None
    if type(index) is not int or not 0 <= index < wanted:
        raise ValueError(f"{shown(str(index), 20)} is not the index of one of {wanted} texts")
    return index


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("a score is not a number")
    if not abs(value) <= LARGEST:  # also of NaN, and of whole numbers that no float holds
        raise ValueError("a score is not finite in 32 bits")
    return float(value)


def _vector(item: Json) -> np.ndarray:
    """A vector (D,) float32, from a list of numbers or from base64."""
    value = item.get("embedding")
    if isinstance(value, str):
        try:
            vector = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        except (ValueError, binascii.Error):
            raise ValueError("a vector is not base64 of 32-bit numbers") from None
    else:
        if not isinstance(value, list) or not all(type(x) in (int, float) for x in value):
            raise ValueError("a vector is not a list of numbers")
        if not all(abs(x) <= LARGEST for x in value):
            raise ValueError("a vector is not finite in 32 bits")
        vector = np.array(value, dtype=np.float32)
    if not vector.size or not np.isfinite(vector).all():
        raise ValueError("a vector is empty or not finite")
    return vector
