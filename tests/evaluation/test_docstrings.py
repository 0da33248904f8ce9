"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import retrieval_kd.evaluation

MODULES = [m.name for m in pkgutil.iter_modules(retrieval_kd.evaluation.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    module = importlib.import_module(f"retrieval_kd.evaluation.{name}")
    assert doctest.testmod(module).failed == 0
