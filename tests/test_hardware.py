"""Which number type a processor computes fastest in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from retrieval_kd import hardware
from retrieval_kd.errors import InputError


@pytest.fixture(autouse=True)
def _unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RETRIEVAL_KD_DTYPE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    hardware.fast_dtype.cache_clear()
    yield
    hardware.fast_dtype.cache_clear()


@pytest.mark.parametrize(
    ("vendor", "flags", "dtype"),
    [
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16", torch.bfloat16),
        ("GenuineIntel", "avx512f avx512_bf16", torch.float32),  # emulated where AMX is hidden
        ("AuthenticAMD", "avx512f avx512_bf16", torch.bfloat16),
        ("AuthenticAMD", "avx2", torch.float32),
        ("", "", torch.float32),
    ],
)
def test_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, dtype: torch.dtype
) -> None:
    facts = {"vendor_id": vendor, "flags": flags}
    monkeypatch.setattr(hardware, "cpuinfo", facts.__getitem__)
    assert hardware.fast_dtype() == dtype


def test_the_environment_overrides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_KD_DTYPE", "bfloat16")
    assert hardware.fast_dtype() == torch.bfloat16


def test_a_wrong_type_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_KD_DTYPE", "int3")
    with pytest.raises(InputError, match="int3"):
        hardware.fast_dtype()
