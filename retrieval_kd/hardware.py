"""Facts about this machine and its fastest dtype, recorded with every measurement."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from retrieval_kd.errors import InputError

PACKAGES = (
    "torch", "sentence-transformers", "transformers", "accelerate", "datasets", "faiss-cpu",
    "faiss-gpu", "pyseismic-lsr", "peft", "ranx", "ir_datasets", "bm25s", "numpy", "pyarrow",
)  # fmt: skip


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def cpuinfo(field: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; "" if it is missing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


@cache
def fast_dtype() -> torch.dtype:
    """bfloat16 where the device is fast at it (CUDA ≥ 8.0, AMX, AVX-512-BF16 by AMD), else float32.

    AVX-512-BF16 is four times as fast as float32 on an AMD EPYC of family 26, and 0.7 times on
    an Intel Xeon whose AMX is hidden (benchmarks/results/dtype.json).
    `RETRIEVAL_KD_DTYPE=float32` (or bfloat16) overrides.
    """
    forced = os.environ.get("RETRIEVAL_KD_DTYPE")
    if forced:
        dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if forced not in dtypes:
            raise InputError(
                f"RETRIEVAL_KD_DTYPE is {forced!r}", remedy=f"set it to {' or '.join(dtypes)}"
            )
        return dtypes[forced]
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    units = cpuinfo("flags").split()
    amd = cpuinfo("vendor_id") == "AuthenticAMD"
    fast = "amx_bf16" in units or (amd and "avx512_bf16" in units)
    return torch.bfloat16 if fast else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def versions() -> dict[str, str]:
    """Versions of the installed packages that results depend on."""
    installed = {"python": platform.python_version()}
    for package in ("retrieval_kd", *PACKAGES):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def describe() -> dict[str, Any]:
    """Describe processor, GPU, threads, memory (GiB) and fast dtype for a measurement's record."""
    units = {"amx_bf16", "amx_int8", "avx512_bf16"}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": cpuinfo("model name") or platform.processor() or platform.machine(),
        "matrix_units": sorted(units.intersection(cpuinfo("flags").split())),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(memory, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "fast_dtype": dtype_name(fast_dtype()),
    }
