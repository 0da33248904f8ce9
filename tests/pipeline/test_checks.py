"""A run with settings that its models or folders do not allow is refused before any stage runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval_kd.config.run import Config
from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError
from retrieval_kd.models.facts import vector_size
from retrieval_kd.models.load import load_encoder
from retrieval_kd.pipeline import queries
from retrieval_kd.pipeline.descriptions import describe_trainings
from retrieval_kd.pipeline.plan import plan, run
from retrieval_kd.pipeline.queries import count_queries
from retrieval_kd.schema import apply_overrides, validate
from retrieval_kd.students.dense import make_dense


@pytest.fixture
def settings(tiny_collection: Path, tiny_encoder: Path, tmp_path: Path) -> dict[str, Any]:
    encoder = str(tiny_encoder)
    return {
        "name": "Tiny",
        "collection": str(tiny_collection),
        "out": str(tmp_path / "run"),
        "encoder": encoder,
        "teacher": {"model": "bm25"},
        "student": {"base": encoder, "max_length": 32},
        "train": {"steps": 1},
        "students": {"labels": {"objective": "infonce"}, "distilled": {"objective": "kl"}},
        "index": str(Path(__file__).parents[2] / "indexes" / "flat.yaml"),
    }


def changed(settings: dict[str, Any], *overrides: str) -> Config:
    return validate(Config, apply_overrides(settings, list(overrides)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.layers=[0, 9]", r"cannot keep layers \[0, 9\] of a model with 4 layers"),
        ("student.layers=[1, 1]", r"cannot keep layers \[1, 1\].*each once"),
        ("students.distilled.student={layers: [7]}", r"cannot keep layers \[7\]"),
        ("student.layers={keep: 5, choose: dev}", "5 layers cannot be chosen of .*, which has 4"),
        ("student.layers={keep: 4}", ""),
        (
            "students.distilled={objective: [{name: embedding_mse, teacher: WIDE}], texts: all}",
            "48 dimensions, the student's 32: .*dimensions: 48",
        ),
        (
            "students.distilled={objective: [{name: embedding_mse, teacher: WIDE}], "
            "student: {dimensions: 48}}",
            "",
        ),
        ("students.distilled.objective=[{name: embedding_similarity, teacher: WIDE}]", ""),
        ("students.distilled.objective=[{name: embedding_pca, teacher: WIDE}]", ""),
        (
            "students.distilled={objective: [{name: embedding_pca, teacher: WIDE}], "
            "student: {dimensions: 49}}",
            "48 dimensions, so they have no 49 axes",
        ),
        ("student.max_length=65", "reads 64 tokens, not 65"),
        ("widths=[16, 33]", "33 dimensions of a student with 32"),
        ("teacher={model: bm25, fuse_with: ['dense:ENCODER'], max_length: 9}", ""),
        ("teacher={fit: {base: ENCODER, layers: [4]}}", r"cannot keep layers \[4\]"),
        ("teacher={fit: {base: ENCODER}, max_length: 99}", "reads 64 tokens, not 99"),
        ("teacher={model: 'pointwise:ENCODER', max_length: 99}", "reads 64 tokens, not 99"),
    ],
)
def test_what_the_models_do_not_allow_is_found_by_a_plan(
    settings: dict[str, Any], override: str, message: str, tmp_path: Path
) -> None:
    override = override.replace("ENCODER", settings["encoder"])
    if "WIDE" in override:
        make_dense(settings["encoder"], dimensions=48).save(str(tmp_path / "wide"))
        override = override.replace("WIDE", str(tmp_path / "wide"))
    if message:
        with pytest.raises(InputError, match=message):
            plan(changed(settings, override))
    else:
        assert plan(changed(settings, override)).todo()
    assert not Path(settings["out"]).exists()


def test_a_plan_counts_documents_and_queries(settings: dict[str, Any], monkeypatch: Any) -> None:
    config = changed(settings, "unlabelled={limit: 7}", "splits.dev=dev", "splits.test_queries=4")
    collection = open_collection(config.collection)
    counted = {"train": 18, "dev": 9, "test": 4, "unlabelled": 7}
    assert count_queries(config, collection) == (counted, False)
    monkeypatch.setattr(queries, "MOST_READ", 59)
    assert count_queries(config, collection) == (counted, True)


def test_a_plan_names_no_batch_larger_than_what_there_is(settings: dict[str, Any]) -> None:
    config = changed(settings, "train.batch_queries=50", "seeds=[0]")
    [said] = set(describe_trainings(config, {"train": 18, "dev": 9, "unlabelled": 20}).values())
    drawn = 38 if config.unlabelled else 18
    assert said.startswith(f"{config.train.steps} steps of {drawn} queries")
    most = {"train": 1_000, "unlabelled": 1_000}
    assert "of 50 queries" in next(iter(describe_trainings(config, most).values()))


def test_a_system_is_not_compared_with_itself(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="compare names 'distilled' twice"):
        changed(settings, "compare=[distilled, distilled]")


@pytest.mark.parametrize("name", ["taken", "taken/run"])
def test_a_file_where_the_run_should_be_is_refused(
    settings: dict[str, Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / "taken").write_text("mine")
    config = changed(settings, f"out={tmp_path / name}")
    for start in (run, lambda config: plan(config).check_folder()):
        with pytest.raises(InputError, match=r"taken: this is a file.*different `out`"):
            start(config)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_with_other_things_is_no_store(settings: dict[str, Any]) -> None:
    config = changed(settings, f"teacher.store={settings['collection']}")
    with pytest.raises(InputError, match=r"does not hold scores.*new folder"):
        plan(config)


def test_the_size_of_vectors_is_read_without_loading(
    tiny_encoder: Path, tiny_cross_encoder: Path
) -> None:
    assert (
        vector_size(str(tiny_encoder)) == load_encoder(str(tiny_encoder)).get_embedding_dimension()
    )
    base = tiny_encoder.with_name(f"{tiny_encoder.name}-transformer")
    assert vector_size(str(base)) == 32
