"""Two processes train the student that one would have trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from retrieval_kd.errors import InputError
from retrieval_kd.training.trainer import devices
from tests.training.shared_training import CASES

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def trained(tiny_collection, tiny_encoder, tmp_path_factory) -> Path:
    """The same trainings by one process, in `one/CASE`, and by two, in `two/CASE`."""
    folder = tmp_path_factory.mktemp("devices")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    shared = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, launcher in {"one": [], "two": shared}.items():
        given = [str(tiny_collection), str(tiny_encoder), str(folder / name)]
        command = [sys.executable, *launcher, "-m", "tests.training.shared_training", *given]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_in_the_student_of_one(case, trained):
    """In-batch candidates are gathered, and all weights get the mean gradient, the loss's too."""
    folders = [trained / name / case for name in ("one", "two")]
    records = [json.loads((folder / "training.json").read_text()) for folder in folders]
    assert [record["processes"] for record in records] == [1, 2]
    files = [file.relative_to(folders[0]) for file in folders[0].rglob("*.safetensors")]
    assert len(files) >= (2 if case == "live" else 1)
    for file in files:
        one, both = (load_file(folder / file) for folder in folders)
        for name in one:
            torch.testing.assert_close(both[name], one[name], atol=2e-4, rtol=1e-3)


def test_what_no_process_has_a_gradient_of_is_left_alone(trained):
    """A gradient of zero would be one, by which weight decay shrinks weights that are not used."""
    found = [json.loads((trained / name / "gradients.json").read_text()) for name in ("one", "two")]
    assert found == [{"used": 1.0, "unused": None}, {"used": 1.5, "unused": None}]


def test_processes_have_one_policy_and_one_reward(trained):
    """Else a resumed training, whose checkpoint is the first's, would teach it otherwise."""
    first, second = (
        json.loads((trained / "two" / f"policy{rank}.json").read_text()) for rank in (0, 1)
    )
    assert first == second
    assert first["rewards"] == 1 and first["baseline"] == 4.0  # the second has none of its own
    assert any(first["before"])


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "processes", lambda: 3)
    assert devices.share_of(6) == 2
    with pytest.raises(InputError, match="multiple of 3"):
        devices.share_of(8)
