"""Shared fixtures: tests run offline, with a temporary cache, on tiny models made here."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread, here and in the processes that tests start: faster on tiny models, and the same bytes.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["RETRIEVAL_KD_DTYPE"] = "float32"  # figures are compared with plain libraries' own

# Slow machines must not fail examples, and what fails must fail again: the same examples each time.
# HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread even if torch was imported before this file."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put caches and ~/.ir_datasets into a temporary home, never into the user's."""
    home = tmp_path_factory.mktemp("home")
    os.environ["HOME"] = str(home)
    os.environ["IR_DATASETS_HOME"] = str(home / "ir_datasets")
    os.environ["RETRIEVAL_KD_CACHE"] = str(home / "cache")
    return home


@pytest.fixture(scope="session")
def tiny_collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder of 60 documents with train, dev and test judgments. Do not write to it."""
    from tests.tiny_models import write_collection

    return write_collection(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 4-layer, 32-dimensional Sentence Transformers encoder (cosine)."""
    from tests.tiny_models import write_encoder

    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def tiny_dot_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without normalisation: a dot-product model."""
    from tests.tiny_models import write_encoder

    return write_encoder(tmp_path_factory.mktemp("models") / "dot", normalise=False, seed=1)


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 2-layer cross-encoder of one logit."""
    from tests.tiny_models import write_cross_encoder

    return write_cross_encoder(tmp_path_factory.mktemp("models") / "cross")


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 2-layer Llama-style decoder, its tokenizer and a chat template."""
    from tests.tiny_models import write_decoder

    return write_decoder(tmp_path_factory.mktemp("models") / "decoder")


@pytest.fixture(scope="session")
def tiny_base_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template: a base model."""
    from tests.tiny_models import write_decoder

    return write_decoder(tmp_path_factory.mktemp("models") / "base", chat=False, seed=1)


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Run `rkd` whole, its log included; gives its exit code and all that it printed."""
    from retrieval_kd.cli.app import main

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        return int(end.value.code or 0), "".join(capsys.readouterr())

    yield run
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)
