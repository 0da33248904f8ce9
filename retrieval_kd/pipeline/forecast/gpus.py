"""What a run would take on a GPU that is named: an estimate from its peak, never a measurement.

    seconds = operations / (peak · utilisation) + what does not run on the GPU, as measured here

Peaks are dense ones, without sparsity, of NVIDIA's data sheets, in bfloat16 with tensor cores; T4
has no bfloat16, so it would compute in float32. Small models use less of a large GPU than large
ones; the utilisation is a round number for batches of short texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from retrieval_kd.errors import InputError, did_you_mean

UTILISATION = 0.25  # of the peak; no unit


@dataclass(frozen=True)
class GPU:
    """A GPU: its peak (operations a second) and its memory (bytes)."""

    name: str
    peak: float
    memory: float

    def seconds(self, flops: float) -> float:
        """Seconds for so many operations, at the stated utilisation.

        Example:
            >>> round(GPUS["A100"].seconds(312e12))
            4
        """
        return flops / (self.peak * UTILISATION)


def _gpu(name: str, teraflops: float, gigabytes: float) -> GPU:
    return GPU(name, teraflops * 1e12, gigabytes * 1e9)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("T4", 8.1, 16),
        _gpu("L4", 121, 24),
        _gpu("A10", 125, 24),
        _gpu("L40S", 362, 48),
        _gpu("A100", 312, 80),
        _gpu("H100", 989, 80),
        _gpu("H200", 989, 141),
    )
}


def find_gpu(name: str) -> GPU:
    """Return a GPU by its name, in any case.

    Raises:
        InputError: the table does not have it.
    """
    known = {known.lower(): gpu for known, gpu in GPUS.items()}
    if name.lower() not in known:
        near = did_you_mean(name, GPUS)
        raise InputError(
            f"no GPU {name!r} in the table", remedy=near or f"one of {', '.join(GPUS)}"
        )
    return known[name.lower()]
