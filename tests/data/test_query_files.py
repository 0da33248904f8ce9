"""Query files for `rkd search --queries`: which files are read, and the error for each mistake."""

from __future__ import annotations

import gzip

import pytest

from retrieval_kd.data.query_files import read_queries
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
