"""Whatever the bytes, an import stores scores or orders of the collection, or refuses the file."""

from __future__ import annotations

import io
import math
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.importers import import_permutations, import_scores
from tests.data.files import write, write_beir
from tests.mutations import FEW, damaged, result_or_refusal

HARD = '{"qid": "q1", "pos": [{"pid": "d1", "ce-score": 2}], "neg": {"a": [{"pid": "d2"}]}}\n'
SIDES = (
    '{"query": "what is wind", "pos": ["Tides The moon pulls the sea."], "neg": [], '
    '"pos_scores": [2.5], "neg_scores": []}\n'
)
PASSAGES = (
    '{"query_id": "q1", "query": "why are there tides", "positive_passages": [{"docid": "d1", '
    '"title": "Tides", "text": "The moon pulls the sea.", "score": 2}], "negative_passages": []}\n'
)
SCORES = {
    "tsv": "query_id\tdocument_id\tscore\nq1\td1\t2.5\nq1\td2\t-1e3\n",
    "trec": "q1 Q0 d1 1 2.5 x\nq1 Q0 d2 2 0.5 x\n",
    "hofstaetter": "2.5\t-1\tq1\td1\td2\n1\t2\tq2\td3\td1\n",
    "tdist": '["q1", ["d1", 2.5], ["d2", 1]]\n',
    "pairs": '{"qid": "q1", "pid": "d1", "score": 2.5}\n{"qid": "q1", "pid": "d2", "score": 1}\n',
    "lists": '[{"query_id": "q1", "doc_ids": "[\'d1\', \'d2\']", "scores": [0.5, -3]}]',
    "nested": '{"q1": {"d1": 3.5, "d2": 1}, "q2": {"d2": 4.0}}',
    "hard": HARD,
    "sides": SIDES,
    "passages": PASSAGES,
}
CONVERSATION = (
    '{"conversations": [{"from": "human", "value": "[1] The sun warms the land.\\n[2] The moon '
    'pulls the sea.\\nSearch Query: what is wind\\nRank the 2"}, {"from": "gpt", "value": "[2] > '
    '[1]"}]}\n'
)
HITS = '"hits": [{"docid": "d1"}, {"docid": "d2"}]'
ORDERS = {
    "record": f'{{"query_id": "q1", {HITS}, "response": "[2] > [1]"}}',
    "numbers": f'[{{"query": "what is wind", {HITS}, "permutation": [1, 0]}}]',
    "conversation": CONVERSATION,
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return open_collection(write_beir(tmp_path_factory.mktemp("whole") / "c"))


def check_import(content: bytes, name: str, collection: Collection | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, store = write(Path(folder) / name, content), ScoreStore(Path(folder) / "store")
        done = result_or_refusal(
            lambda: import_scores(path, store, "m", collection=collection), name
        )
        if done is not None:
            rows = store.read(done.key).to_pylist()
            assert len(rows) == done.stored and all(math.isfinite(row["score"]) for row in rows)
            assert store.verify() == []
            if collection is not None:
                assert all(row["query_id"] in collection.queries for row in rows)
                assert all(row["document_id"] in collection.documents for row in rows)


@pytest.mark.parametrize("shape", SCORES)
@FEW
@given(data=st.data())
def test_a_damaged_file_of_scores(collection: Collection, shape: str, data: st.DataObject) -> None:
    texts = data.draw(st.sampled_from([collection, None]))
    check_import(data.draw(damaged(SCORES[shape])), "scores.txt", texts)


def parquet() -> bytes:
    rows = [{"query_id": "q1", "docid": "d1", "score": 2.5}] * 3
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, compression="none")
    return out.getvalue()


@FEW
@given(content=damaged(parquet()))
def test_a_damaged_parquet_file(collection: Collection, content: bytes) -> None:
    check_import(content, "scores.parquet", collection)


@pytest.mark.parametrize("shape", ORDERS)
@FEW
@given(data=st.data())
def test_a_damaged_file_of_orders(collection: Collection, shape: str, data: st.DataObject) -> None:
    content = data.draw(damaged(ORDERS[shape]))
    with tempfile.TemporaryDirectory() as folder:
        path, store = write(Path(folder) / "orders.jsonl", content), ScoreStore(Path(folder) / "s")
        done = result_or_refusal(
            lambda: import_permutations(path, store, "m", collection), "orders.jsonl"
        )
        assert done is None or store.verify() == []
