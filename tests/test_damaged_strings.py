"""Whatever it is, the name of a teacher, an objective or a report is read or refused in a line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.cli.train import integers
from retrieval_kd.config.methods import Entry, find_method
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.report.data import ReportData
from retrieval_kd.evaluation.result_file import read_result
from retrieval_kd.evaluation.systems import check_systems
from retrieval_kd.files import read_json
from retrieval_kd.metrics.names import parse_measures
from retrieval_kd.teachers.spec import parse_checked
from retrieval_kd.training.objective.terms import parse_terms
from tests.data.files import write
from tests.mutations import FEW, damaged, result_or_refusal

STRINGS = {
    "teacher": (parse_checked, "listwise:org/model?window=4&stride=2&passage_tokens=64"),
    "objective": (parse_terms, "kl(teacher_temperature=0.5):1.0+infonce:0.5@batch"),
    "measures": (parse_measures, "nDCG@10,MRR@10,recall@100"),
    "layers": (integers, "[0, 2, 5]"),
    "systems": (lambda text: check_systems([text], None), "bm25+lucene"),
    "collection": (open_collection, "python-api"),
}


@pytest.mark.parametrize("kind", STRINGS)
@FEW
@given(data=st.data())
def test_a_damaged_string(kind: str, data: st.DataObject) -> None:
    read, valid = STRINGS[kind]
    text = data.draw(damaged(valid)).decode("utf-8", errors="replace")
    result_or_refusal(lambda: read(text), "")


@pytest.mark.parametrize("kind", STRINGS)
def test_the_whole_string_is_read(kind: str) -> None:
    read, valid = STRINGS[kind]
    if kind != "collection":  # which is built, in seconds
        read(valid)


SYSTEM = {
    "mean": {"ndcg@10": 0.75},
    "per_query": {"ndcg@10": {"q1": 0.5, "q2": 1.0}},
    **{"judged@10": 0.5, "seeds": [], "seed_means": {}, "spread": {"ndcg@10": None}},
}
RESULT = {
    **{"measures": ["ndcg@10"], "systems": {"a": SYSTEM}, "comparisons": [], "warnings": []},
    **{"counts": {"queries": 2}, "rules": ["One."], "exclude_self": True, "condensed": False},
}
FILES = {
    "report.json": (
        lambda path: ReportData.from_json(read_json(path)),
        json.dumps(ReportData("Tiny", settings={"a": [1]}).to_json()),
    ),
    "result.json": (read_result, json.dumps(RESULT)),
}


@pytest.mark.parametrize("name", FILES)
@FEW
@given(data=st.data())
def test_a_damaged_file_of_results(name: str, data: st.DataObject) -> None:
    read, valid = FILES[name]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / name, data.draw(damaged(valid)))
        result_or_refusal(lambda: read(path), name, "report")


@pytest.mark.parametrize("name", FILES)
def test_the_whole_file_is_read(name: str, tmp_path: Path) -> None:
    read, valid = FILES[name]
    assert read(write(tmp_path / name, valid))


CONFIGS = Path(__file__).parents[1] / "configs"
METHOD = (CONFIGS / "methods" / "margin_mse.yaml").read_text()


def read_method(folder: Path, content: str | bytes) -> Entry:
    write(folder / "methods.yaml", (CONFIGS / "methods.yaml").read_bytes())
    write(folder / "mine" / "m.yaml", content)
    return find_method("m", folder / "mine")


@FEW
@given(content=damaged(METHOD))
def test_a_damaged_method(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result_or_refusal(lambda: read_method(Path(folder), content), "m.yaml")


def test_the_whole_method_is_read(tmp_path: Path) -> None:
    assert read_method(tmp_path, METHOD).objective == "margin_mse"


def test_a_method_whose_students_cannot_be_read_is_refused(tmp_path: Path) -> None:
    text = METHOD.replace("\nstudents:", "\nstudents: x\nothers:")
    with pytest.raises(InputError, match="students cannot be read"):
        read_method(tmp_path, text)


def test_a_system_of_a_very_long_name_is_looked_for() -> None:
    long = "x" * 5_000 + "+bm25"
    assert check_systems([long]) == {long: long}
