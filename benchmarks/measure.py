"""What benchmarks share: repeated timing, the matrix-product peak, files of texts and results."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from retrieval_kd.data.texts import Document
from retrieval_kd.files import write_json, write_text
from retrieval_kd.hardware import describe, versions

RESULTS = Path(__file__).parent / "results"


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@dataclass
class Timed:
    """A candidate's last result, and the wall and processor seconds of each round."""

    result: Any = None
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)


def interleaved(candidates: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Timed]:
    """Time the candidates in turns, so that drift affects all alike."""
    timed = {name: Timed() for name in candidates}
    for _ in range(rounds):
        for name, function in candidates.items():
            wall, processor = time.perf_counter(), time.process_time()
            timed[name].result = function()
            timed[name].processor.append(time.process_time() - processor)
            timed[name].wall.append(time.perf_counter() - wall)
    return timed


def matrix_peak(dtype: torch.dtype, size: int = 2048, rounds: int = 5) -> float:
    """Median TFLOP/s of a square product of random matrices."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    left @ right
    return (
        2 * size**3 / statistics.median(seconds(lambda: left @ right) for _ in range(rounds)) / 1e12
    )


def write_texts(path: Path, texts: Iterable[Document]) -> None:
    """Write documents or queries as BEIR's JSON lines."""
    rows = (json.dumps({"_id": id, "title": title, "text": text}) for id, title, text in texts)
    write_text(path, "".join(f"{row}\n" for row in rows))


def save(name: str, record: dict[str, Any]) -> Path:
    """Write `results/NAME.json` with the hardware and versions of the measurement."""
    path = RESULTS / f"{name}.json"
    write_json(path, {**record, "hardware": describe(), "versions": versions()})
    return path
