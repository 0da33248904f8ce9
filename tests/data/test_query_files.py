"""Query files for `rkd search --queries`: which files are read, and the error for each mistake."""

from __future__ import annotations

import gzip

import pytest

from retrieval_kd.data.query_files import read_log, read_queries
from retrieval_kd.errors import Drops, InputError


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
    ("name", "content", "ids"),
    [
        ("log.txt", "why is it blue\n\n  who\tsaid so \nwhy is it blue\n", ("1", "3", "4")),
        ("log.tsv", "a\twhy is it blue\nb\twho\tsaid so\nc\twhy is it blue\n", None),
        ("log.tsv", "a\twhy is it blue\nb\twho said so\nc\twhy is it blue\n", ("a", "b", "c")),
    ],
)
def test_a_log_has_each_query_once_under_an_id_of_its_own(tmp_path, name, content, ids):
    (tmp_path / name).write_text(content)
    drops = Drops()
    if ids is None:
        with pytest.raises(InputError, match=r"log\.tsv:2"):
            read_log(tmp_path / name, drops)
        return
    first, second, repeated = ids
    texts = read_log(tmp_path / name, drops)
    assert list(texts) == [f"log:{first}", f"log:{second}"]
    assert texts[f"log:{first}"] == "why is it blue" and texts[f"log:{second}"].split()[0] == "who"
    assert drops.counts == {"repeated query of the log": 1}
    assert drops.first == {"repeated query of the log": repeated}


def test_a_log_without_a_query_is_refused(tmp_path):
    (tmp_path / "log.txt").write_text("\n  \n")
    with pytest.raises(InputError, match="no query"):
        read_log(tmp_path / "log.txt", Drops())
