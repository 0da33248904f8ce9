"""YAML mistakes are named with file, line and the nearest known key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_kd.config import Config
from retrieval_kd.errors import InputError
from retrieval_kd.schema import apply_overrides, read_yaml, validate

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
