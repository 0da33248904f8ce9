"""The scored pairs of one record: documents by ID or by text, in pairs, lists or on two sides."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retrieval_kd.data.json_lines import first_value
from retrieval_kd.data.numerals import finite_number
from retrieval_kd.data.rows import BROKEN
from retrieval_kd.errors import Drops, InputError

QUERY = ("query_id", "qid", "query-id", "queryid", "topic")
DOCUMENT = (
    *("document_ids", "doc_ids", "docids", "docnos", "pids", "passage_ids", "docs"),
    *("document_id", "doc_id", "docid", "docno", "pid", "passage_id", "corpus_id", "corpus-id"),
)
SCORE = ("scores", "score", "ce-score", "ce_score", "logits", "logit")
RANK = ("rank", "ranks", "ranking")
MARGIN = ("positive_id", "negative_id", "positive_ids", "negative_ids", "pos_id", "neg_id")
TEXTS = (
    *("text", "passage", "document", "content", "contents", "segment", "body"),
    *("documents", "passages", "texts"),
)
CANDIDATES = "candidates"  # rank_llm's
PASSAGES = ("positive_passages", "negative_passages")  # Tevatron's
SIDES = ("pos", "neg")  # FlagEmbedding's
TEXT_FIELDS = frozenset(
    ("query", *TEXTS, CANDIDATES, *PASSAGES, *SIDES, "pos_scores", "neg_scores")
)
FIELDS = frozenset((*QUERY, *DOCUMENT, *SCORE, *RANK, *MARGIN))
HEADER = FIELDS - {*RANK, *MARGIN}  # column names of a header line
JUDGMENT = {"query-id", "corpus-id", "score"}  # BEIR's names
LARGEST = float(np.finfo(np.float32).max)


class ScoredPair(NamedTuple):
    """A score of a pair from a file; `line` (or row) counts from 1.

    A query or document has an ID, a text that a collection is searched for, or both. Without an ID
    it is "".
    """

    query_id: str
    document_id: str
    score: float
    line: int
    query: str | None = None
    document: tuple[str, ...] = ()  # the forms of its text
    judged: bool = False  # in the form in which BEIR writes judgments


class Published(NamedTuple):
    """A document of a record: its ID or "", and the forms of its text, to search for."""

    id: str
    texts: tuple[str, ...] = ()


def record_pairs(
    record: Mapping[str, Any], file: Path, line: int, drops: Drops
) -> Iterator[ScoredPair]:
    """Read the pairs of one record.

    Example:
        >>> here = Path("scores.jsonl"), 1, Drops()
        >>> [pair[:3] for pair in record_pairs({"qid": 7, "pid": "a", "score": 2}, *here)]
        [('7', 'a', 2.0)]
        >>> listed = {"query_id": "7", "doc_ids": "[4, 5]", "scores": [0.5, -1]}
        >>> [pair[:3] for pair in record_pairs(listed, *here)]
        [('7', '4', 0.5), ('7', '5', -1.0)]
        >>> [pair[:3] for pair in record_pairs({"qid": 7, "scores": {"a": 2, "b": 1}}, *here)]
        [('7', 'a', 2.0), ('7', 'b', 1.0)]
        >>> texts = {"query": "why?", "pos": ["so"], "neg": [], "pos_scores": [2], "neg_scores": []}
        >>> [pair[2:6] for pair in record_pairs(texts, *here)]
        [(2.0, 1, 'why?', ('so',))]
    """
    id, text = first_value(record, QUERY), record.get("query")
    if isinstance(text, Mapping):  # rank_llm's
        id = first_value(text, QUERY) if id is None else id
        text = first_value(text, TEXTS)
    query_id = "" if id is None else to_id(id, "query", file, line)
    passages = any(isinstance(record.get(name), list) for name in PASSAGES)
    sided = any(isinstance(record.get(side), list) for side in SIDES)
    query = text if isinstance(text, str) and text.strip() else None
    if id is None and query is None:
        problem = f"no query ID among the fields {_names(record)}"
        remedy = f"name the field {' or '.join(QUERY[:2])}, or give the text as query"
        raise InputError(problem, file=file, line=line, remedy=remedy)
    if passages:
        documents, scores = _passages(record, file, line, drops)
    elif sided:
        documents, scores = _sides(record, file, line)
    else:
        documents, scores = _documents(record, file, line)
    judged = is_judgment(record)
    for (document_id, texts), value in zip(documents, scores, strict=True):
        score = to_score(value, file, line)
        yield ScoredPair(query_id, document_id, score, line, query, texts, judged)


def is_judgment(names: Iterable[str]) -> bool:
    """Whether these are all the names of fields of BEIR's judgments, here or in `mteb/*`."""
    return {str(name).replace("_", "-") for name in names} == JUDGMENT


def _documents(
    record: Mapping[str, Any], file: Path, line: int
) -> tuple[list[Published], list[Any]]:
    """Read the documents of a record, by ID or else by text, and their scores."""
    documents, scores = _list(first_value(record, DOCUMENT)), _list(first_value(record, SCORE))
    by_text, beside = False, None
    if documents is not None:
        beside = first_value(record, TEXTS)
        beside = _list(beside) if isinstance(documents, list) else [beside]
    elif isinstance(scores, dict):
        documents, scores = list(scores), list(scores.values())
    else:
        documents = first_value(record, (*TEXTS, CANDIDATES))
        by_text = documents is not None
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
    _check_lengths(documents, scores, file, line)
    published = [_document(document, by_text, file, line) for document in documents]
    return _with_texts(published, beside), scores


def _with_texts(documents: list[Published], texts: Any) -> list[Published]:
    """Add the texts that stand beside IDs, so that they are compared with the collection's."""
    if not isinstance(texts, list) or len(texts) != len(documents):
        return documents
    return [
        document._replace(texts=(text,)) if isinstance(text, str) and text.strip() else document
        for document, text in zip(documents, texts, strict=True)
    ]


def _document(value: Any, by_text: bool, file: Path, line: int) -> Published:
    """Read a document: an object with an ID or a text, or one of the two."""
    title = ""
    if isinstance(value, dict):
        inner = value.get("doc")
        merged = {**value, **inner} if isinstance(inner, dict) else value
        id, text = first_value(value, (*DOCUMENT, "id", "_id")), first_value(merged, TEXTS)
        title = merged.get("title") or ""
    else:
        id, text = (None, value) if by_text else (value, None)
    if not isinstance(text, str | None) or not isinstance(title, str):
        raise InputError(f"{value!r:.60} is no text of a passage", file=file, line=line)
    if id is None and not (text or "").strip():
        raise InputError("a document without an ID and a text", file=file, line=line)
    texts = (f"{title} {text}", text) if text and title else (text,) if text else ()
    if id is None:
        return Published("", texts)
    return Published(to_id(id, "document", file, line), texts)


def _passages(
    record: Mapping[str, Any], file: Path, line: int, drops: Drops
) -> tuple[list[Published], list[Any]]:
    """Read Tevatron's lists of passages, each with its score."""
    documents, scores = [], []
    for name in PASSAGES:
        entries = record.get(name) or []
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise InputError(f"{name} is not a list of passages", file=file, line=line)
        for entry in entries:
            score = first_value(entry, SCORE)
            if score is None:
                drops.add("passage without a score", f"line {line}")
            else:
                documents.append(_document(entry, True, file, line))
                scores.append(score)
    return documents, scores


def _sides(record: Mapping[str, Any], file: Path, line: int) -> tuple[list[Published], list[Any]]:
    """Read FlagEmbedding's lists of texts, and of their scores."""
    documents: list[Published] = []
    scores: list[Any] = []
    for side in SIDES:
        texts, found = record.get(side) or [], record.get(f"{side}_scores")
        if texts and not found:
            problem = f"texts in {side} without {side}_scores"
            remedy = "score them, for example with FlagEmbedding's add_reranker_score.py"
            raise InputError(problem, file=file, line=line, remedy=remedy)
        if not isinstance(texts, list) or not isinstance(found or [], list):
            raise InputError(f"{side} or {side}_scores is not a list", file=file, line=line)
        _check_lengths(texts, found or [], file, line)
        documents += [_document(text, True, file, line) for text in texts]
        scores += found or []
    return documents, scores


def _check_lengths(documents: list[Any], scores: list[Any], file: Path, line: int) -> None:
    if len(scores) != len(documents):
        problem = f"{len(documents)} documents but {len(scores)} scores"
        raise InputError(problem, file=file, line=line)


def _names(record: Mapping[str, Any]) -> str:
    """The names of a record's fields, for messages."""
    shown = [f"{name:.40}" for name in map(str, record)]
    return ", ".join(shown[:12]) + (", …" if len(shown) > 12 else "")


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
        return first_value(document, SCORE) is not None
    return isinstance(document, (list, tuple)) and len(document) == 2


def _split(document: Any) -> tuple[Any, Any]:
    if isinstance(document, dict):
        return document, first_value(document, SCORE)
    return document[0], document[1]


def _no_document(record: Mapping[str, Any], file: Path, line: int) -> InputError:
    if any(name in record for name in MARGIN):
        return InputError(
            "margins between two documents, not scores",
            file=file,
            line=line,
            remedy="import the file with one score per pair; a margin cannot be taken apart",
        )
    return InputError(
        f"no document ID among the fields {_names(record)}",
        file=file,
        line=line,
        remedy="name the field document_id, or document_ids for a list",
    )


def to_id(value: Any, noun: str, file: Path, line: int) -> str:
    """Check an ID and convert it to text.

    Example:
        >>> to_id(867436, "query", Path("scores.jsonl"), 1)
        '867436'
        >>> to_id(1.5, "query", Path("scores.jsonl"), 1)
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: scores.jsonl:1: query ID 1.5 is neither text nor a whole \
number
    """
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        problem = f"{noun} ID {value!r:.80} is neither text nor a whole number"
        raise InputError(problem, file=file, line=line)
    text = value.strip()
    if not text or BROKEN.search(text):
        problem = f"{noun} ID with half a character or a zero byte" if text else f"empty {noun} ID"
        raise InputError(problem, file=file, line=line, remedy="correct or remove the line")
    if len(text.split(None, 1)) > 1:
        raise InputError(
            f"{noun} ID with whitespace",
            file=file,
            line=line,
            id=f"{text:.60}",
            remedy="is this a text? Scores are imported by ID",
        )
    return text


def to_score(value: Any, file: Path, line: int) -> float:
    """Check a score, a number or its text, and convert it to a finite float.

    Example:
        >>> to_score("-3.25", Path("scores.tsv"), 1)
        -3.25
    """
    score = finite_number(value.strip() if isinstance(value, str) else value)
    if score is None:
        problem = f"score {value!r:.60} is not a finite number"
        raise InputError(problem, file=file, line=line, remedy="correct or remove the line")
    if abs(score) > LARGEST:
        problem = f"score {value!r:.60} is too large for 32 bits"
        raise InputError(problem, file=file, line=line, remedy="correct or remove the line")
    return score


def only_ranks(file: Path, line: int) -> InputError:
    """The error for an order without scores."""
    return InputError(
        "an order of documents without scores",
        file=file,
        line=line,
        remedy="import a file with the teacher's own scores: a rank says which document is better "
        "but not by how much, so as a pointwise score it would be made up",
    )
