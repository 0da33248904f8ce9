from __future__ import annotations

from pathlib import Path

from tests.faults.inject import inject_all


def test_every_fault_is_found_or_harmless(tmp_path: Path) -> None:
    counts = inject_all(tmp_path, 45, seed=13)
    assert sum(count.total() for count in counts.values()) == 45
    assert all(count["found"] for count in counts.values())
