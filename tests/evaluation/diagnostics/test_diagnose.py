from __future__ import annotations

import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import Run, write_run
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.diagnostics.diagnose import diagnostics, print_diagnostics, score_pairs
from retrieval_kd.evaluation.diagnostics.failures import JUDGED, MISSED, OVERLAP
from retrieval_kd.evaluation.diagnostics.fidelity import MEASURES
from retrieval_kd.evaluation.report.data import ReportData
from retrieval_kd.evaluation.report.pictures import pictures
from retrieval_kd.files import read_json
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.teachers.score import score
from retrieval_kd.teachers.spec import open_teacher


@pytest.fixture(scope="module")
def collection(tiny_collection: Path) -> Collection:
    return open_collection(tiny_collection)


@pytest.fixture(scope="module")
def runs(collection: Collection, tiny_encoder: Path) -> tuple[Run, Run]:
    """BM25 as the teacher of an encoder with random weights."""
    queries = collection.query_texts("test")
    teacher = retrieve(collection, queries, "bm25", 20)
    return teacher, Run("student", retrieve(collection, queries, str(tiny_encoder), 20).results)


@pytest.fixture(scope="module")
def record(collection: Collection, runs: tuple[Run, Run]) -> dict:
    teacher, student = runs
    copy = Run("copy", teacher.results)
    return diagnostics(collection, collection.qrels("test"), teacher, [student, copy])


def test_a_student_of_random_weights_differs_and_a_copy_does_not(record: dict) -> None:
    student, copy = record["students"]["student"], record["students"]["copy"]
    assert student["mean"] < record["teacher"]["mean"] == copy["mean"]
    for name in MEASURES:
        assert student["loyalty"]["mean"][name] < copy["loyalty"]["mean"][name] == 1
    assert student["worst"] and not copy["worst"]
    assert copy["calibration"]["bins"] == record["teacher"]["calibration"]["bins"]
    for rows in copy["failures"].values():
        assert all(row["difference"] == row["low"] == row["high"] == 0 for row in rows)


def test_each_table_holds_every_query(record: dict) -> None:
    for rows in record["students"]["student"]["failures"].values():
        assert sum(row["count"] for row in rows) == record["queries"]
    assert {OVERLAP, MISSED} < set(record["students"]["student"]["failures"])


def test_the_record_is_json_and_prints_within_a_terminal(record: dict) -> None:
    assert json.loads(json.dumps(record)) is not None
    out = StringIO()
    print_diagnostics(record, Console(file=out, width=80))
    assert "student" in out.getvalue() and "loses most" in out.getvalue()
    assert "…" not in re.sub(r" … ", "", out.getvalue())  # no cell is cut


def test_self_matches_are_left_out_unless_asked_for(collection: Collection) -> None:
    qrels = {"birds0": {"birds0": 1, "birds1": 1}, "ships0": {"ships1": 1}}
    teacher = Run("t", {"birds0": {"birds0": 9.0, "birds1": 1.0}, "ships0": {"ships1": 1.0}})
    student = Run("s", {"birds0": {"birds1": 1.0}, "ships0": {"ships1": 1.0}})
    faithful = diagnostics(collection, qrels, teacher, [student])["students"]["s"]
    assert faithful["loyalty"]["mean"]["top_1"] == faithful["mean"] == 1
    assert [row["to"] for row in faithful["failures"][JUDGED]] == [1]
    kept = diagnostics(collection, qrels, teacher, [student], exclude_self=False)["students"]["s"]
    assert kept["loyalty"]["mean"]["top_1"] == 0.5
    # only the teacher has the document of the query's ID: one of two agrees, and one of one
    assert kept["loyalty"]["mean"]["relevant"] == 0.75
    assert [row["to"] for row in kept["failures"][JUDGED]] == [1, 2]
    assert [d["document_id"] for d in kept["worst"][0]["relevant"]] == ["birds0", "birds1"]


def test_a_single_query_with_constant_scores_and_no_shared_document_is_described(
    collection: Collection,
) -> None:
    teacher = Run("t", {"q": {"birds0": 1.0, "birds1": 1.0}})
    student = Run("s", {"q": {"ships0": 2.0}})
    found = diagnostics(collection, {"q": {"birds0": 1}}, teacher, [student])
    assert found["queries"] == 1 and found["teacher"]["calibration"] is None
    student_found = found["students"]["s"]
    assert student_found["loyalty"]["mean"]["kendall"] is None and not student_found["points"]
    print_diagnostics(found, Console(file=StringIO()))


def test_two_runs_of_one_name_and_no_student_are_refused(
    collection: Collection, runs: tuple[Run, Run]
) -> None:
    teacher, _ = runs
    with pytest.raises(InputError, match="two runs are named 'bm25'"):
        diagnostics(collection, collection.qrels("test"), teacher, [teacher])
    with pytest.raises(InputError, match="no student"):
        diagnostics(collection, collection.qrels("test"), teacher, [])


def test_the_scatter_keeps_all_relevant_pairs_and_thins_the_others() -> None:
    found = {f"d{i}": float(i) for i in range(100)}
    run, qrels = Run("r", {"q": found}), {"q": {"d3": 1, "d7": 2}}
    points = score_pairs(run, run, qrels, most=10)
    assert sorted(t for t, _, relevant in points if relevant) == [3.0, 7.0]
    assert 5 <= sum(not relevant for *_, relevant in points) <= 10
    assert all(teacher == student for teacher, student, _ in points)


def test_pictures_are_svg_with_the_pages_colours(record: dict) -> None:
    one = {"bins": [{"count": 3, "predicted": 0.0, "observed": 0.0}]}
    student = {**record["students"]["student"], "name": "a<b", "calibration": one}
    found = pictures(ReportData("", diagnostics={**record, "students": {"a<b": student}}))
    for svg in (picture["svg"] for picture in found["teacher"]):
        assert (svg.startswith("<svg") and "var(--c1)" in svg) or "var(--c2)" in svg
        assert "a<b" not in svg and "nan" not in svg.lower().replace("nanum", "")


def test_the_command_writes_what_the_function_returns(
    tiny_collection: Path,
    collection: Collection,
    runs: tuple[Run, Run],
    record: dict,
    tmp_path: Path,
    command: Callable[..., tuple[int, str]],
) -> None:
    files = [tmp_path / f"{run.name}.trec" for run in runs]
    for run, path in zip(runs, files, strict=True):
        write_run(run, path)
    queries = collection.query_texts("train")
    wanted = {query: list(collection.documents.ids())[:30] for query in queries}
    for query, judged in collection.qrels("train").items():
        wanted[query] = list(dict.fromkeys([*wanted[query], *judged]))
    for teacher in ("bm25", "bm25-lucene"):
        asked = open_teacher(teacher, collection)
        score(collection, queries, wanted, asked, ScoreStore(tmp_path / "scores"))
    out = tmp_path / "out.json"
    words = ["--collection", tiny_collection, "--teacher", files[0], "--student", files[1]]
    words += ["--scores", tmp_path / "scores", "--json", out, "--split", "test"]
    code, said = command("diagnose", *words)
    assert code == 0, said
    written = read_json(out)
    assert written["students"]["student"] == json.loads(json.dumps(record))["students"]["student"]
    assert written["negatives"]["queries"] == len(queries)
    assert set(written["inputs"]["runs"]) == {"bm25", "student"}
    assert "training negatives" in said
