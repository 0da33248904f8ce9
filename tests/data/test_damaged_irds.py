"""Whatever a collection of `ir_datasets` gives, it is read right or refused in one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.data import irds
from retrieval_kd.data.collection import open_collection
from tests.mutations import FEW, result_or_refusal

VALUES = [None, True, 0, -1, 1.5, 2.0, float("nan"), 10**30, "", " ", "1", "1_0", "d1", "q1", "a b",
          "\ud800", "x\0", "\u202e", "x" * 5_000, b"x", [], {}, object()]  # fmt: skip
FIELDS = {
    "docs": ("doc_id", "title", "text", "default_text"),
    "queries": ("query_id", "default_text"),
    "qrels": ("query_id", "doc_id", "relevance"),
}


class Record:
    """A document, query or judgment; `default_text` is a function if it is a text."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)
        if isinstance(text := fields.get("default_text"), str | None):
            self.default_text = lambda: text


class Fake:
    """A dataset of two documents, two queries and two judgments, with some fields changed."""

    def __init__(self, edits: list[tuple[tuple[str, str], int, Any]]) -> None:
        self.records: dict[str, list[dict[str, Any]]] = {
            "docs": [{"doc_id": f"d{n}", "title": "T", "text": f"text {n}"} for n in (1, 2)],
            "queries": [{"query_id": f"q{n}", "default_text": f"why {n}"} for n in (1, 2)],
            "qrels": [{"query_id": f"q{n}", "doc_id": f"d{n}", "relevance": 1} for n in (1, 2)],
        }
        for (kind, name), place, value in edits:
            self.records[kind][place][name] = value
            if name == "default_text":
                self.records[kind][place].pop("text", None)

        self.docs_iter, self.queries_iter, self.qrels_iter = (
            partial(self._iterate, kind) for kind in self.records
        )

    def _iterate(self, kind: str) -> Iterator[Record]:
        return iter([Record(**fields) for fields in self.records[kind]])

    def has_docs(self) -> bool:
        return True

    has_queries = has_qrels = has_docs

    def docs_count(self) -> int:
        return 2


PLACES = [(kind, name) for kind, names in FIELDS.items() for name in names]
EDIT = st.tuples(st.sampled_from(PLACES), st.integers(0, 1), st.sampled_from(VALUES))


@settings(FEW, max_examples=150)
@given(st.lists(EDIT, max_size=2))
def test_an_odd_record(edits: list[tuple[tuple[str, str], int, Any]]) -> None:
    with (
        tempfile.TemporaryDirectory() as cache,
        mock.patch.dict(os.environ, {"RETRIEVAL_KD_CACHE": cache}),
        mock.patch("os.fsync"),
        mock.patch.object(irds, "_load", lambda id: Fake(edits)),
        mock.patch.object(irds, "_split", lambda id: "test"),
    ):
        collection = result_or_refusal(lambda: open_collection("irds:odd/set"), "odd/set", "odd-s")
        if collection is None:
            return
        for query, judged in collection.qrels("test").items():
            assert collection.queries[query].full.strip()
            for document, gain in judged.items():
                assert collection.documents[document].id == document
                assert type(gain) is int
        if not edits:
            assert collection.qrels("test") == {"q1": {"d1": 1}, "q2": {"d2": 1}}
