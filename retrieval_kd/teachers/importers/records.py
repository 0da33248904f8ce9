"""Reader of a record with named fields, from JSONL or Parquet: one pair, or a query's list."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.teachers.importers.pairs import ScoredPair, only_ranks, to_id, to_score

QUERY = ("query_id", "qid", "query-id", "queryid", "topic")
DOCUMENT = (
    *("document_ids", "doc_ids", "docids", "docnos", "pids", "passage_ids", "docs"),
    *("document_id", "doc_id", "docid", "docno", "pid", "passage_id", "corpus_id", "corpus-id"),
)
SCORE = ("scores", "score", "ce-score", "ce_score", "logits", "logit")
RANK = ("rank", "ranks", "ranking")
MARGIN = ("positive_id", "negative_id", "positive_ids", "negative_ids", "pos_id", "neg_id")
FIELDS = frozenset((*QUERY, *DOCUMENT, *SCORE, *RANK, *MARGIN))


def record_pairs(record: dict[str, Any], file: Path, line: int) -> Iterator[ScoredPair]:
    """Read the pairs of one record.

    Example:
        >>> here = Path("scores.jsonl"), 1
        >>> [pair[:3] for pair in record_pairs({"qid": 7, "pid": "a", "score": 2}, *here)]
        [('7', 'a', 2.0)]
        >>> listed = {"query_id": "7", "doc_ids": "[4, 5]", "scores": [0.5, -1]}
        >>> [pair[:3] for pair in record_pairs(listed, *here)]
        [('7', '4', 0.5), ('7', '5', -1.0)]
        >>> [pair[:3] for pair in record_pairs({"qid": 7, "scores": {"a": 2, "b": 1}}, *here)]
        [('7', 'a', 2.0), ('7', 'b', 1.0)]
    """
    query = _first(record, QUERY)
    documents, scores = _list(_first(record, DOCUMENT)), _list(_first(record, SCORE))
    if query is None:
        raise InputError(
            f"no query ID among the fields {', '.join(map(str, record))}",
            file=file,
            line=line,
            remedy=f"name the field {' or '.join(QUERY[:2])}",
        )
    query_id = to_id(query, "query", file, line)
    if documents is None and isinstance(scores, dict):
        documents, scores = list(scores), list(scores.values())
    if documents is None:
        raise _no_document(record, file, line)
    if not isinstance(documents, list):
        if isinstance(scores, list):
            raise InputError("a list of scores for one document", file=file, line=line)
        documents, scores = [documents], None if scores is None else [scores]
    elif scores is None and documents and all(map(_is_scored, documents)):
        documents, scores = map(list, zip(*map(_split, documents), strict=True))
    if scores is None:
        raise only_ranks(file, line)
    if not isinstance(scores, list):
        raise InputError("one score for a list of documents", file=file, line=line)
    if len(scores) != len(documents):
        raise InputError(
            f"{len(documents)} documents but {len(scores)} scores", file=file, line=line
        )
    for document, score in zip(documents, scores, strict=True):
        document_id = to_id(document, "document", file, line)
        yield ScoredPair(query_id, document_id, to_score(score, file, line), line)


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _list(value: Any) -> Any:
    """Parse a list that was stored as text (JSON or Python literals) without running any code."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value


def _is_scored(document: Any) -> bool:
    if isinstance(document, dict):
        return _first(document, SCORE) is not None
    return isinstance(document, (list, tuple)) and len(document) == 2


def _split(document: Any) -> tuple[Any, Any]:
    if isinstance(document, dict):
        return _first(document, (*DOCUMENT, "id", "_id")), _first(document, SCORE)
    return document[0], document[1]


def _no_document(record: dict[str, Any], file: Path, line: int) -> InputError:
    if any(name in record for name in MARGIN):
        return InputError(
            "margins between two documents, not scores",
            file=file,
            line=line,
            remedy="import the file with one score per pair; a margin cannot be taken apart",
        )
    return InputError(
        f"no document ID among the fields {', '.join(map(str, record))}",
        file=file,
        line=line,
        remedy="name the field document_id, or document_ids for a list",
    )
