"""Runs: the same after writing and reading, in trec_eval's order."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_kd.data.collection import open_collection
from retrieval_kd.data.runs import Run, check_run, read_run, write_run
from retrieval_kd.errors import InputError
from tests.data.files import write, write_beir
from tests.data.test_texts import ID

SCORES = st.floats(allow_nan=False, allow_infinity=False)
RESULTS = st.dictionaries(ID, st.dictionaries(ID, SCORES, min_size=1, max_size=8), min_size=1)


@settings(deadline=None, max_examples=60)
@given(RESULTS, st.sampled_from(["run.trec", "run.trec.gz"]))
def test_writing_and_reading_changes_nothing(
    results: dict[str, dict[str, float]], name: str
) -> None:
    run = Run("a", results)
    with tempfile.TemporaryDirectory() as folder:
        write_run(run, Path(folder) / name)
        again = read_run(Path(folder) / name)
    assert again == run
    for query_id, found in run.results.items():
        assert list(again.results[query_id].items()) == list(found.items())  # order and digits
    assert list(again.results) == list(run.results)


@given(st.dictionaries(ID, st.sampled_from([0.1, 0.1 + 1e-12, 1.0, 1e39, 1e40]), min_size=1))
def test_best_first_in_single_precision_and_ties_by_descending_id(scores: dict[str, float]) -> None:
    found = Run("a", {"q": scores}).results["q"]
    with np.errstate(over="ignore"):
        expected = sorted(scores, key=lambda d: (np.float32(scores[d]), d), reverse=True)
    assert list(found) == expected
    assert found == scores


def test_the_same_run_gives_the_same_bytes_gzipped(tmp_path: Path) -> None:
    run = Run("a", {"q1": {"d1": 1.0}})
    for name in ("a.gz", "b.gz"):
        write_run(run, tmp_path / name)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_numpy_scores_become_plain_floats(tmp_path: Path) -> None:
    scores = {"d1": np.float32(0.1), "d2": np.int64(3)}
    run = Run("a", {"q1": scores})  # type: ignore[dict-item]
    write_run(run, tmp_path / "a.trec")
    assert read_run(tmp_path / "a.trec").results == {
        "q1": {"d2": 3.0, "d1": float(np.float32(0.1))}
    }


def test_lines_of_a_query_need_not_be_together_or_in_order(tmp_path: Path) -> None:
    text = "q1\tQ0\td1\t1\t1e0\ta\nq2 Q0 d1 1 5 a\nq1 Q0 d2 2 7 a\n"
    run = read_run(write(tmp_path / "a.trec", text))
    assert list(run.results["q1"]) == ["d2", "d1"]
    assert list(run.results) == ["q1", "q2"]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_numbers_are_refused(score: float) -> None:
    with pytest.raises(InputError, match=r"document d1 is not a finite number \(id q1\)"):
        Run("a", {"q1": {"d1": score}})


def test_a_query_without_results_is_counted_when_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(Run("two words", {"q1": {"d1": 1.0}, "q2": {}}), tmp_path / "a.trec")
    assert "1 × query without results" in caplog.text
    assert read_run(tmp_path / "a.trec") == Run("two_words", {"q1": {"d1": 1.0}})


def test_a_run_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    write_run(Run("a", {"q1": {"d1": 1.0}}), tmp_path / "a.trec")
    with pytest.raises(InputError, match="document ID with whitespace"):
        write_run(Run("a", {"q1": {"d 1": 1.0}}), tmp_path / "a.trec")
    assert read_run(tmp_path / "a.trec").results == {"q1": {"d1": 1.0}}
    assert [file.name for file in tmp_path.iterdir()] == ["a.trec"]


def test_a_run_of_another_collection_is_refused(tmp_path: Path) -> None:
    collection = open_collection(write_beir(tmp_path / "c"))
    check_run(Run("a", {"q1": {"d1": 1.0, "d2": 0.5}}), collection)
    with pytest.raises(InputError, match=r"names 1 of 2 document IDs .* collection c: d9"):
        check_run(Run("a", {"q1": {"d1": 1.0, "d9": 0.5}}), collection)
    with pytest.raises(InputError, match=r"names 1 of 1 query IDs .* collection c: q9"):
        check_run(Run("a", {"q9": {"d1": 1.0}}), collection)


def test_top_cuts_every_query() -> None:
    run = Run("a", {"q1": {"d1": 1.0, "d2": 3.0, "d3": 2.0}, "q2": {"d1": 1.0}})
    assert run.top(2).results == {"q1": {"d2": 3.0, "d3": 2.0}, "q2": {"d1": 1.0}}
