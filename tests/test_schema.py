"""YAML mistakes are named with file, line and the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.config.run import Config
from retrieval_kd.errors import InputError
from retrieval_kd.schema import apply_overrides, overlay, read_extended, read_yaml, validate

ROOT = Path(__file__).parent.parent
keys = st.text("abcxyz", min_size=1, max_size=4)


def test_broken_yaml_names_the_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: x\nstudent: [1,\n")
    with pytest.raises(InputError, match=r"bad\.yaml:\d+: not YAML"):
        read_yaml(tmp_path / "bad.yaml")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words"])
def test_what_is_no_mapping_is_refused(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match="mapping"):
        read_yaml(tmp_path / "c.yaml")


def test_an_unknown_nested_key_gets_the_nearest_one():
    with pytest.raises(InputError, match="did you mean 'depth'"):
        validate(Config, {"first_stage": {"dept": 3}})


@given(st.lists(keys, min_size=1, max_size=3), st.integers())
def test_an_override_puts_its_value_at_its_path(path, value):
    found = apply_overrides({}, [f"{'.'.join(path)}={value}"])
    for key in path:
        found = found[key]
    assert found == value


def test_an_override_keeps_its_neighbours():
    values = {"student": {"base": "m", "layers": [0]}}
    assert apply_overrides(values, ["student.layers=[1,2]"]) == {
        "student": {"base": "m", "layers": [1, 2]}
    }


def test_an_override_changes_nothing_that_a_file_said_once_for_several(tmp_path):
    """An alias of YAML is the same mapping or list, which must not be changed in both places."""
    file = tmp_path / "c.yaml"
    file.write_text("a: {stages: &both [{train: {steps: 9}}]}\nb: {stages: *both}\n")
    found = apply_overrides(read_extended(file), ["a.stages.0.train.steps=2"])
    assert found["a"]["stages"] == [{"train": {"steps": 2}}]
    assert found["b"]["stages"] == [{"train": {"steps": 9}}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"steps": "many"}}, r"train\.steps: .*To fix: write a whole number.*'many'"),
        ({"train": {"learning_rate": "x"}}, r"To fix: write a number, such as 0\.5"),
        ({"train": {"steps": 0}}, r"train\.steps: .*To fix: choose a value other than 0"),
        ({"seeds": 3}, r"seeds: .*To fix: write a list, such as \[a, b\], in place of 3"),
        ({"student": 3}, r"student: .*To fix: write a mapping"),
        ({"collection": ["a"]}, r"collection: .*To fix: write text in place of it"),
        ({"seeds": []}, r"seeds: .*To fix: add to it"),
        ({"compare": ["a", "b", "c"]}, r"compare: .*To fix: shorten it"),
        ({"unlabelled": {"kind": "title"}}, r"unlabelled\.kind: .*To fix: did you mean 'titles'"),
        ({"student": {"kind": "adaptor"}}, r"student\.kind: .*To fix: did you mean 'adapter'"),
        ({"unlabelled": {"kind": "words"}}, r"unlabelled\.kind: .*To fix: write one of these"),
    ],
)
def test_a_value_of_a_wrong_type_or_range_says_what_belongs_there(values, message):
    whole = read_extended(ROOT / "configs" / "quickstart.yaml")
    with pytest.raises(InputError, match=message):
        validate(Config, overlay(whole, values))


@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "[" * 3000, "!!int ''", "!!timestamp x", "!!bool x", "2024-13-45", '"\\ud800"'],
)
def test_a_value_that_yaml_stumbles_over_is_one_line(tmp_path, value):
    path = tmp_path / "settings.yaml"
    path.write_text(f"key: {value}\n")
    with pytest.raises(InputError, match=r"settings\.yaml: not YAML"):
        read_yaml(path)
    with pytest.raises(InputError, match="not YAML"):
        apply_overrides({}, [f"key={value}"])


@pytest.mark.parametrize("value", ["1_0", "010", "1:30", "-1_0", "1_0.5", "1:30.5"])
def test_a_number_that_yaml_reads_as_another_is_refused(tmp_path, value):
    (tmp_path / "settings.yaml").write_text(f"key: {value}\n")
    with pytest.raises(InputError, match=r"settings\.yaml:1: not YAML: .* is no plain number"):
        read_yaml(tmp_path / "settings.yaml")
    with pytest.raises(InputError, match="not YAML"):
        apply_overrides({}, [f"key={value}"])
    assert apply_overrides({}, [f"key='{value}'"]) == {"key": value}


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("-7", -7), ("0.5", 0.5), ("1.0e-4", 1e-4)])
def test_plain_numbers_are_numbers(text, value):
    assert apply_overrides({}, [f"key={text}"]) == {"key": value}


def test_a_number_in_quotes_has_plain_digits_too():
    def changed(override: str) -> Config:
        whole = read_extended(ROOT / "configs" / "quickstart.yaml")
        return validate(Config, apply_overrides(whole, [override]))

    with pytest.raises(InputError, match=r"train\.steps: write the number in plain digits"):
        changed("train.steps='1_0'")
    assert changed("name='1_0'").name == "1_0"
