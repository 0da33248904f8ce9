"""Query files for `rkd search --queries`: which files are read, and the error for each mistake."""

from __future__ import annotations

import gzip

import pytest

from retrieval_kd.data.query_files import read_log, read_queries
from retrieval_kd.errors import InputError


def test_jsonl_tsv_and_gzip_files_hold_the_same_queries(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"_id": "a", "text": "one"}\n{"_id": "b", "text": "two"}\n')
    (tmp_path / "q.tsv").write_text("a\tone\nb\ttwo\n")
    (tmp_path / "q.tsv.gz").write_bytes(gzip.compress(b"a\tone\nb\ttwo\n"))
    for name in ("q.jsonl", "q.tsv", "q.tsv.gz"):
        assert read_queries(tmp_path / name) == {"a": "one", "b": "two"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.tsv", "a\tone\na\ttwo\n", r"q\.tsv:2: duplicate query ID \(id a\)"),
        ("q.tsv", "a b\tone\n", "q.tsv:1"),
        ("q.tsv", "a\t\n", r"q\.tsv:1: empty query \(id a\)"),
        ("q.tsv", "only one column\n", "1 columns"),
        ("q.jsonl", "{broken\n", r"q\.jsonl:1: broken JSON"),
        ("q.jsonl", '{"_id": "a"}\n', 'no "text"'),
        ("q.jsonl", "", "no query"),
    ],
)
def test_a_mistake_names_file_line_and_id(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_queries(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_queries(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("log.txt", "why is it blue\n\n  who said so \n", {"log:1": "why is it blue",
                                                          "log:3": "who said so"}),
        ("log.tsv", "a\twhy is it blue\n", {"log:a": "why is it blue"}),
        ("log.jsonl", '{"_id": "7", "text": "why is it blue"}\n', {"log:7": "why is it blue"}),
    ],
)  # fmt: skip
def test_the_queries_of_a_log_have_ids_of_their_own(tmp_path, name, content, texts):
    (tmp_path / name).write_text(content)
    assert read_log(tmp_path / name) == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [("\n  \n", "no query"), ("fine\nq2\twhy is it blue\n", r"log\.txt:2: a tab.*\.tsv")],
)
def test_a_text_that_is_no_log_is_refused(tmp_path, content, message):
    (tmp_path / "log.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        read_log(tmp_path / "log.txt")
