from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import read_run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.retrieval.hybrid import hybrid_run
from retrieval_kd.retrieval.retrieve import retrieve


def test_each_name_gives_a_run_that_survives_a_trec_file(
    tiny_collection: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    collection = open_collection(tiny_collection)
    queries = collection.query_texts("test")
    parts = {name: retrieve(collection, queries, name, 10) for name in ("bm25", str(tiny_encoder))}
    hybrid = retrieve(collection, queries, f"bm25+{tiny_encoder}", 10)
    assert hybrid == hybrid_run(list(parts.values()), depth=10)
    for run in (*parts.values(), hybrid, retrieve(collection, queries, "bm25-lucene", 10)):
        assert list(run.results) == list(queries)
        write_run(run, tmp_path / "run.trec")
        assert read_run(tmp_path / "run.trec").results == run.results


def test_what_is_no_retriever_is_an_error(tiny_collection: Path) -> None:
    collection = open_collection(tiny_collection)
    with pytest.raises(InputError, match="no installed Python package 'no_such_encoder'"):
        retrieve(collection, {"q": "sparrow"}, "bm25+package:no-such-encoder", 10)
    with pytest.raises(InputError, match="depth is 0"):
        retrieve(collection, {"q": "sparrow"}, "bm25", 0)
