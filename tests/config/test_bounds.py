"""Every number in a configuration, a specification or a teacher's name has bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from retrieval_kd.config.run import Config
from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.suite.spec import Suite
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.pipeline.stored_ensemble import StoredTeachers
from retrieval_kd.schema import apply_overrides, models_in, read_yaml, validate
from retrieval_kd.students.options import check_options
from retrieval_kd.teachers.kinds import KINDS
from retrieval_kd.training.objective.terms import parse_terms

ROOTS = [Config, Suite, IndexSpec, StoredTeachers, *(kind.options for kind in KINDS.values())]


def models(roots: list[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    seen: set[type[BaseModel]] = set()
    while roots:
        model = roots.pop()
        if model not in seen:
            seen.add(model)
            yield model
            roots += [m for f in model.model_fields.values() for m in models_in(f.annotation)]


def numbers() -> list[tuple[type[BaseModel], str, Any]]:
    """Fields that hold numbers, and a function that puts one into their shape."""
    shapes = {"list[": lambda n: [n], "tuple[": lambda n: [n], "dict[str,": lambda n: {"a": n}}
    found = []
    for model in models(list(ROOTS)):
        for name, field in model.model_fields.items():
            text = str(field.annotation).replace(" ", "")
            if "int" in text.replace("interaction", "") or "float" in text:
                shape = next((s for start, s in shapes.items() if start in text), lambda n: n)
                found.append((model, field.alias or name, shape))
    return found


@pytest.mark.parametrize(
    ("model", "name", "shape"), numbers(), ids=lambda v: getattr(v, "__name__", str(v))
)
def test_no_number_is_infinite_not_a_number_or_beyond_all_use(model, name, shape) -> None:
    for value in (float("nan"), float("inf"), -float("inf"), 10**20, -(10**20)):
        if isinstance(value, int) and "float" in str(model.model_fields.get(name, "")):
            continue
        with pytest.raises(ValidationError) as error:
            model.model_validate({name: shape(value)})
        assert name in {found["loc"][0] for found in error.value.errors() if found["loc"]}, value


def test_numbers_are_found() -> None:
    names = {(model.__name__, name) for model, name, _ in numbers()}
    assert {("TrainSettings", "seed"), ("Teacher", "weights"), ("Config", "seeds")} < names
    assert len(names) > 50


@pytest.mark.parametrize("weights", [[0.0], [-1.0], [1.0, -1.0], [0.0, 0.0], [float("nan")]])
def test_weights_that_weigh_nothing_are_refused(weights, tmp_path) -> None:
    with pytest.raises(InputError, match="weights"):
        validate(StoredTeachers, {"store": tmp_path, "weights": weights})


@pytest.mark.parametrize(
    "text", ["kl:nan", "kl:inf", "kl:-1", "kl:0", f"kl(teacher_temperature={10**20})", "kl:1e999"]
)
def test_a_term_with_a_hostile_number_is_refused(text) -> None:
    with pytest.raises(InputError, match="cannot read objective"):
        parse_terms(text)


@pytest.mark.parametrize("value", [0, -1, 10**20, float("nan"), "x"])
@pytest.mark.parametrize(("kind", "name"), [("sparse", "top_k"), ("interaction", "hidden")])
def test_an_option_of_a_student_has_bounds(kind, name, value) -> None:
    with pytest.raises(InputError, match=f"{name}: "):
        check_options(kind, None, {name: value})


def test_a_number_or_date_that_is_none_is_one_line(tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("name: a\nseed: 2024-13-45\n")
    with pytest.raises(InputError, match="not YAML"):
        read_yaml(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="not YAML"):
        apply_overrides({}, ["seed=2024-13-45"])
