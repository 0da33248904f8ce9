"""The examples in the docstrings of `retrieval_kd.data` run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import retrieval_kd.data

MODULES = sorted(
    f"retrieval_kd.data.{m.name}" for m in pkgutil.iter_modules(retrieval_kd.data.__path__)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
