"""Whatever the bytes, a reader of collections, judgments, runs or queries is right or refuses."""

from __future__ import annotations

import gzip
import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.qrels import read_qrels, write_qrels
from retrieval_kd.data.query_files import read_queries
from retrieval_kd.data.runs import read_run, write_run
from tests.data.files import write, write_beir, write_msmarco, write_trec, zip_folder
from tests.mutations import FEW, damaged, result_or_refusal

QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"
RUN = "q1 Q0 d1 1 2.5 a\nq1 Q0 d2 2 -0.25 a\n"
XML = (
    '<?xml version="1.0"?>\n<topics>\n<topic number="q1"><query>tides</query></topic>\n</topics>\n'
)
FORMS = {"beir": write_beir, "msmarco": write_msmarco, "trec": write_trec}
EXTRA = {
    "beir": {"qrels/dev.jsonl": '{"query-id": "q1", "corpus-id": "d1", "score": 1}\n'},
    "msmarco": {},
    "trec": {"topics.more.xml": XML},
}


def files_of(form: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        top = FORMS[form](Path(folder) / "c")
        for name, text in EXTRA[form].items():
            write(top / name, text)
        return {str(f.relative_to(top)): f.read_bytes() for f in top.rglob("*") if f.is_file()}


FILES = {form: files_of(form) for form in FORMS}
PLACES = [(form, name) for form, files in FILES.items() for name in sorted(files)]


def check_collection(path: Path) -> None:
    cache = {"RETRIEVAL_KD_CACHE": str(path.parent / "cache")}
    with mock.patch.dict(os.environ, cache), mock.patch("os.fsync"):  # faster
        collection = result_or_refusal(lambda: open_collection(path), "damaged-c")
        if collection is not None:
            for split in collection.splits:
                for query, judged in collection.qrels(split).items():
                    assert collection.queries[query].full
                    assert all(collection.documents[d].id == d for d in judged)
            "".join(collection.drops.summary()).encode()


@pytest.mark.parametrize(("form", "name"), PLACES, ids=["-".join(place) for place in PLACES])
@FEW
@given(data=st.data())
def test_a_damaged_file_of_a_collection(form: str, name: str, data: st.DataObject) -> None:
    whole = FILES[form][name]
    if name.endswith(".gz"):
        inner = damaged(gzip.decompress(whole)).map(gzip.compress)
        content = data.draw(damaged(whole) | inner)
    else:
        content = data.draw(damaged(whole))
    with tempfile.TemporaryDirectory() as folder:
        for other, kept in FILES[form].items():
            write(Path(folder) / "damaged-c" / other, content if other == name else kept)
        check_collection(Path(folder) / "damaged-c")


def zipped() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return zip_folder(write_beir(Path(folder) / "c"), Path(folder) / "c.zip", "c/").read_bytes()


@FEW
@given(damaged(zipped()))
def test_a_damaged_zip(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_collection(write(Path(folder) / "damaged-c.zip", content))


READERS = {
    "qrels.tsv": (read_qrels, QRELS),
    "qrels.txt": (read_qrels, "q1 0 d1 1\nq1 0 d2 0\n"),
    "qrels.jsonl": (read_qrels, EXTRA["beir"]["qrels/dev.jsonl"]),
    "run.trec": (read_run, RUN),
    "queries.jsonl": (read_queries, '{"_id": "q1", "text": "tides"}\n'),
    "queries.tsv": (read_queries, "qid\tquery\nq1\ttides\n"),
}


@pytest.mark.parametrize("name", READERS)
@FEW
@given(data=st.data())
def test_a_damaged_file_by_itself(name: str, data: st.DataObject) -> None:
    read, valid = READERS[name]
    content = data.draw(damaged(valid, gzip.compress(valid.encode())))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / name, content)
        result = result_or_refusal(lambda: read(path), name)
        again = Path(folder) / "again.tsv"
        if result is not None and read is read_qrels:
            write_qrels(result, again)
            assert read_qrels(again) == result
        elif result is not None and read is read_run:
            write_run(result, again)
            assert read_run(again).results == result.results
