"""Shipped configurations, made small enough to run in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from retrieval_kd.schema import read_extended

CONFIGS = Path(__file__).parents[2] / "configs"


def shrunk(shipped: str, collection: Path, encoder: Path, **changes: Any) -> dict[str, Any]:
    """A shipped configuration on the tiny collection and encoder, with few steps."""
    tiny = {
        "collection": str(collection),
        "encoder": str(encoder),
        "splits": {"dev": "dev", "dev_queries": 10},
        "first_stage": {"with": "bm25", "depth": 12},
        "teacher": {"fuse_with": ["bm25"]},
        "student": {"base": str(encoder), "layers": [0, 3], "max_length": 32},
        "train": {"steps": 4, "batch_queries": 6, "max_tokens": 32, "eval_steps": 4},
    }
    return read_extended(CONFIGS / shipped) | tiny | changes


def written(config: dict[str, Any], folder: Path) -> Path:
    """The file of a configuration that runs in this folder."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**config, "out": str(folder / "run")}))
    return path
