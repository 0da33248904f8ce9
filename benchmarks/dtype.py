"""Is bfloat16 faster than float32 here? The reason for `hardware.fast_dtype`.

python -m benchmarks.dtype          # half a minute
"""

from __future__ import annotations

import statistics

import torch

from benchmarks.measure import matrix_peak, save, seconds

SHAPES = {"attention": (4096, 384, 384), "feed-forward": (4096, 384, 1536), "square": (2048,) * 3}


def main() -> None:
    """Time matrix products of MiniLM's shapes in both dtypes and write results/dtype.json."""
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
    print("TFLOP/s; written to", save("dtype", {"tflops": record, "square_peak": peaks}))


if __name__ == "__main__":
    main()
