"""Servers that run for a whole session, on a decoder that everything here is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from retrieval_kd.data.runs import Run, write_run
from tests.teachers.llm.server.serving import llama_server, missing, transformers_serve
from tests.tiny_models import TOPICS, write_decoder


@pytest.fixture(scope="session")
def served_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny decoder and its chat template, which writes whole characters only.

    A random one often begins with half a character, and then llama.cpp's server leaves the
    probabilities out.
    """
    folder = write_decoder(tmp_path_factory.mktemp("served") / "decoder")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    halves = [token for token in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([token])]
    weights["lm_head.weight"][halves] = 0  # a logit of 0 is never the highest of hundreds
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def llama(served_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of llama.cpp's server: the decoder, with log-probabilities."""
    why = missing("openai", "xllamacpp", "gguf")
    if why:
        pytest.skip(why)
    from tests.teachers.llm.server.gguf_file import write_gguf

    folder = tmp_path_factory.mktemp("llama")
    file = write_gguf(served_decoder, folder / "decoder.gguf")
    with llama_server(file, folder / "log") as url:
        yield url


@pytest.fixture(scope="session")
def transformers(served_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve`: the decoder, without log-probabilities."""
    why = missing("openai", "fastapi", "uvicorn")
    if why:
        pytest.skip(why)
    with transformers_serve(served_decoder, tmp_path_factory.mktemp("serve") / "log") as url:
        yield url


@pytest.fixture(scope="session")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """Writes a run of so many train queries with so many candidates each, and gives its file."""
    folder = tmp_path_factory.mktemp("runs")

    def write(queries: int, depth: int) -> Path:
        documents = [f"{topic}{number}" for number in range(10) for topic in TOPICS]
        asked = [f"q-{topic}{number}" for number in range(3) for topic in TOPICS][:queries]
        results = {
            query: {id: float(depth - rank) for rank, id in enumerate(documents[start:][:depth])}
            for start, query in enumerate(asked)
        }
        path = folder / f"{queries}-{depth}.trec"
        write_run(Run("first", results), path)
        return path

    return write
