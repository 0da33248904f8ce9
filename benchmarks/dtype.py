"""Is bfloat16 faster than float32 here? The reason for `hardware.fast_dtype`.

python -m benchmarks.dtype          # half a minute
"""

from __future__ import annotations

import statistics

import torch

from benchmarks.measure import RESULTS, matrix_peak, seconds
from retrieval_kd.files import read_json, write_json
from retrieval_kd.hardware import describe, versions

SHAPES = {"attention": (4096, 384, 384), "feed-forward": (4096, 384, 1536), "square": (2048,) * 3}


def main() -> None:
    """Time matrix products of MiniLM's shapes in both dtypes; dtype.json keeps each processor's."""
    record: dict[str, dict[str, float]] = {}
    for name, (rows, inner, columns) in SHAPES.items():
        rates = {}
        for dtype in (torch.float32, torch.bfloat16):
            left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
            left @ right
            took = statistics.median(seconds(lambda a=left, b=right: a @ b) for _ in range(9))
            rates[str(dtype).removeprefix("torch.")] = 2 * rows * inner * columns / took / 1e12
        rates["bfloat16_over_float32"] = rates["bfloat16"] / rates["float32"]
        record[name] = {key: round(value, 3) for key, value in rates.items()}
        print(f"{name:14}", record[name])
    peaks = {str(t): round(matrix_peak(t), 3) for t in (torch.float32, torch.bfloat16)}
    path = RESULTS / "dtype.json"
    known = read_json(path) if path.exists() else {}
    machine = describe()
    known[machine["processor"]] = {
        "tflops": record, "square_peak": peaks, "hardware": machine, "versions": versions()
    }  # fmt: skip
    write_json(path, known)
    print("TFLOP/s; written to", path)


if __name__ == "__main__":
    main()
