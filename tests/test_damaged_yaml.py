"""Whatever the bytes, a YAML file of settings or a prompt is read or refused in one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.config.run import load_config
from retrieval_kd.config.training import Training
from retrieval_kd.evaluation.suite.spec import load_suite
from retrieval_kd.indexing.spec import load_spec
from retrieval_kd.schema import read_extended, validate
from retrieval_kd.teachers.llm.prompts import find_template
from tests.data.files import write
from tests.mutations import FEW, damaged, result_or_refusal

QUICKSTART = (Path(__file__).parents[1] / "configs" / "quickstart.yaml").read_text()


def read_training(path: Path) -> Training:
    return validate(Training, read_extended(path), path)


PROMPT = "user: |\n  {query}\n  {passage}\nanswers: ['Yes', 'No']\n"
READERS = {
    "run": (load_config, QUICKSTART),
    "training": (read_training, "objective: [{name: kl, weight: 0.5}]\ntrain: {steps: 20}\n"),
    "index": (load_spec, "factory: HNSW32\nsearch: efSearch=64\n"),
    "suite": (load_suite, "name: a\nmeasures: [ndcg@10]\ncollections: {a: {split: dev}}\n"),
    "prompt": (lambda path: find_template(str(path), ()), PROMPT),
}


@pytest.mark.parametrize("kind", READERS)
@FEW
@given(data=st.data())
def test_a_damaged_yaml_file(kind: str, data: st.DataObject) -> None:
    read, valid = READERS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "settings.yaml", data.draw(damaged(valid)))
        result_or_refusal(lambda: read(path), "settings.yaml")


@pytest.mark.parametrize("kind", READERS)
def test_the_whole_file_is_read(kind: str, tmp_path: Path) -> None:
    read, valid = READERS[kind]
    assert read(write(tmp_path / "settings.yaml", valid))
