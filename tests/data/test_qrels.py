"""Judgments: the same after writing and reading, from BEIR's and from TREC's form."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.data.qrels import HEADERS, Qrels, read_qrels, write_qrels
from retrieval_kd.errors import InputError
from tests.data.files import write
from tests.data.test_texts import ID

GAINS = st.dictionaries(ID, st.integers(0, 9), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(ID, GAINS, min_size=1))
def test_writing_and_reading_changes_nothing(qrels: Qrels) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_qrels(qrels, Path(folder) / "qrels.tsv")
        again = read_qrels(Path(folder) / "qrels.tsv")
    assert again == qrels
    assert list(again) == list(qrels)


@pytest.mark.parametrize("separator", [" ", "\t", "   "])
@pytest.mark.parametrize("name", ["qrels.txt", "qrels.txt.gz"])
def test_trec_form_is_recognised_by_its_four_columns(
    tmp_path: Path, separator: str, name: str
) -> None:
    lines = "".join(separator.join(("7", "0", document, "1")) + "\r\n" for document in ("a", "b"))
    assert read_qrels(write(tmp_path / name, lines)) == {"7": {"a": 1, "b": 1}}


@pytest.mark.parametrize("header", sorted(HEADERS))
def test_common_headers_are_recognised(
    tmp_path: Path, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"{header.upper()}\tcorpus-id\tscore\nq1\td1\t1\n"
    assert read_qrels(write(tmp_path / "q.tsv", text)) == {"q1": {"d1": 1}}
    assert not caplog.records


def test_without_a_header_no_judgment_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_qrels(write(tmp_path / "q.tsv", "q1\td1\t1\n")) == {"q1": {"d1": 1}}
    assert len(caplog.records) == 1 and "first line read as a judgment" in caplog.text


def test_no_judgment_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no judgment at all"):
        read_qrels(write(tmp_path / "q.tsv", "query-id\tcorpus-id\tscore\n"))
