"""A training that is stopped and started again must end as one at one go. Not a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from retrieval_kd.training.trainer import engine


def assert_same_after_a_stop(
    run: Callable[[Path], dict[str, Any]], folder: Path, at: int = 6
) -> dict[str, Any]:
    """Stop `run(out)`, which saves a checkpoint every 4 steps; return the undisturbed record."""
    record = run(folder / "whole")

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == at:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "Bar", lambda steps: Stop())
        run(folder / "stopped")
    assert run(folder / "stopped")["resumed_from_step"] == at // 4 * 4
    files = sorted(p.relative_to(folder / "whole") for p in folder.glob("whole/**/*.safetensors"))
    assert files
    for file in files:
        whole, stopped = (load_file(folder / name / file) for name in ("whole", "stopped"))
        assert all(torch.equal(whole[name], stopped[name]) for name in whole), file
    return record
