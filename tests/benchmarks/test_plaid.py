"""The comparison with PLAID reads what the other environment found."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import plaid

SEARCHED = {**plaid.SEARCHES[0], "rankings": [[[1, 2.5], [0, 1.0]]], "wall": [4.0], "cpu": [3.0]}
FOUND = {"torch": "2", "pool": 2.0, "bits": 1, "files": {"a": 10, "b": 5}, "build_seconds": 1.0}


def test_the_other_process_gets_the_settings_and_its_findings_become_rows(tmp_path: Path) -> None:
    python = tmp_path / "python"
    found = json.dumps({**FOUND, "searches": [SEARCHED]})
    python.write_text(f"#!/bin/sh\ncat > \"$2/found-2-1.json\" <<'END'\n{found}\nEND\n")
    python.chmod(0o755)
    [index] = plaid.run_plaid(str(python), tmp_path, [(2.0, 1)])
    assert json.loads((tmp_path / "settings.json").read_text())["variants"] == [[2.0, 1]]
    exact: Any = SimpleNamespace(_id_at="xy".__getitem__)
    row, rankings = plaid.plaid(exact, index, index["searches"][0])
    assert rankings == [{"y": 2.5, "x": 1.0}]
    assert (row["bytes"], row["wall_ms_p50"], row["cpu_ms_p95"]) == (15, 4.0, 3.0)


def test_token_vectors_are_saved_with_their_lengths(tmp_path: Path) -> None:
    plaid.save_tokens(tmp_path / "t.npz", [np.ones((2, 3)), np.zeros((1, 3))])
    with np.load(tmp_path / "t.npz") as saved:
        assert saved["tokens"].shape == (3, 3) and saved["tokens"].dtype == np.float16
        assert saved["lengths"].tolist() == [2, 1]
