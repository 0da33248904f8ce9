from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_kd.config.run import Config, load_config
from retrieval_kd.pipeline.plan import run


@pytest.fixture(scope="module")
def finished(config_file: Path) -> Config:
    """The configuration in `config_file`, which has been run."""
    config = load_config(config_file)
    run(config)
    return config
