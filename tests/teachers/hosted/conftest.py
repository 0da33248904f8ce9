"""One server for all tests here, and runs to score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.teachers.hosted.model_server import model_server
from tests.teachers.llm.server.conftest import candidates

__all__ = ["candidates"]


@pytest.fixture(scope="session")
def served(tiny_encoder: Path, tiny_cross_encoder: Path) -> Iterator[str]:
    """The address of a server with the tiny encoder and the tiny cross-encoder."""
    pytest.importorskip("openai")
    with model_server(tiny_encoder, tiny_cross_encoder) as url:
        yield url


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No vectors of other tests."""
    monkeypatch.setenv("RETRIEVAL_KD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval_kd.teachers.llm.server import calls

    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.001)
