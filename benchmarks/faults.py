"""Injects faults of the disk into caches, stores, indexes, checkpoints and records of stages.

    python -m benchmarks.faults --faults 300 --seed 0

Each fault is found or harmless, or the command fails and names it; see `tests/faults/inject.py`.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from tests.faults.inject import inject_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("retrieval_kd").propagate = False  # a found fault is a warning
    with tempfile.TemporaryDirectory() as folder:
        counts = inject_all(Path(folder), options.faults, options.seed)
    print(f"{'kind':12}{'faults':>8}{'found':>8}{'harmless':>10}")
    for kind, count in counts.items():
        print(f"{kind:12}{count.total():8}{count['found']:8}{count['harmless']:10}")


if __name__ == "__main__":
    main()
