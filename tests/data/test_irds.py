"""`ir_datasets` IDs, on collections registered here: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from tests.data.files import DOCUMENTS, QRELS, QUERIES


class TitledDoc(NamedTuple):
    doc_id: str
    title: str
    body: str

    def default_text(self) -> str:
        return f"{self.title} {self.body}"


@pytest.fixture(scope="module")
def registered() -> str:
    import ir_datasets
    from ir_datasets.formats import base

    class Docs(base.BaseDocs):
        def docs_iter(self) -> Iterator[Any]:
            return iter([TitledDoc(*row) for row in DOCUMENTS])

        def docs_count(self) -> int:
            return len(DOCUMENTS)

        def docs_cls(self) -> type:
            return TitledDoc

    class Queries(base.BaseQueries):
        def queries_iter(self) -> Iterator[Any]:
            return iter([base.GenericQuery(*row) for row in QUERIES])

    class Judgments(base.BaseQrels):
        def __init__(self, split: str) -> None:
            self.split = split

        def qrels_iter(self) -> Iterator[Any]:
            if self.split == "broken":
                raise RuntimeError("the download failed")
            for query_id, judged in QRELS[self.split].items():
                for document_id, gain in judged.items():
                    yield base.GenericQrel(query_id, document_id, gain)

    docs, queries = Docs(), Queries()
    register = ir_datasets.registry.register
    register("rkd-tiny", ir_datasets.Dataset(docs, queries))
    for split in QRELS:
        register(f"rkd-tiny/{split}", ir_datasets.Dataset(docs, queries, Judgments(split)))
    register("rkd-bare", ir_datasets.Dataset(docs))
    register("rkd-bare/broken", ir_datasets.Dataset(docs, queries, Judgments("broken")))
    return "rkd-tiny"


@pytest.mark.parametrize("prefix", ["", "irds:"])
def test_an_id_without_judgments_has_its_parts_as_splits(registered: str, prefix: str) -> None:
    collection = open_collection(f"{prefix}{registered}")
    assert [tuple(document) for document in collection.documents.iterate()] == DOCUMENTS
    assert [(query.id, query.text) for query in collection.queries.iterate()] == QUERIES
    assert {split: collection.qrels(split) for split in collection.splits} == QRELS


def test_an_id_with_judgments_has_one_split(registered: str) -> None:
    collection = open_collection(f"{registered}/test")
    assert collection.splits == ["test"]
    assert collection.qrels("test") == QRELS["test"]
    assert collection.name == "rkd-tiny-test"


def test_an_id_without_queries_names_its_parts(registered: str) -> None:
    with pytest.raises(InputError, match=r"has no queries.*rkd-bare/broken"):
        open_collection("rkd-bare")


def test_a_failure_inside_ir_datasets_is_an_input_error(registered: str) -> None:
    with pytest.raises(InputError, match=r"could not provide rkd-bare/broken.*the download failed"):
        open_collection("rkd-bare/broken")
