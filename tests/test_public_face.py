"""The public names can be imported from the top level, and are loaded only when used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import retrieval_kd


@pytest.mark.parametrize("name", retrieval_kd.__all__)
def test_every_public_name_is_what_its_module_defines(name):
    assert getattr(retrieval_kd, name).__module__.startswith("retrieval_kd.")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        retrieval_kd.no_such_name  # noqa: B018


def test_importing_the_package_loads_no_model_library():
    code = "import sys, retrieval_kd; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
