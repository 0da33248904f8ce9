"""Kills commands at random moments, resumes them and compares what they leave with the true result.

    python -m benchmarks.kills --kills 100 --seed 0

See `tests/faults/kill.py`. A kill must change no result, no finished piece may be made again, and
no question may be sent to a server whose answer had come. Calls that a kill met in flight are sent
again, and counted apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import save
from tests.faults.kill import kill_all

COLUMNS = ("kills", "terms", "resumed", "same", "redone", "calls", "repeated", "in_flight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="*", default=[], help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process with threads cannot be forked
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_all(Path(folder), options.kills, options.seed, options.commands)
    seconds = round(time.monotonic() - started)
    total = {name: sum(count[name] for count in counts.values()) for name in COLUMNS}
    print(f"{'':16}" + "".join(f"{name:>10}" for name in COLUMNS))
    for kind, count in {**counts, "all": total}.items():
        print(f"{kind:16}" + "".join(f"{count[name]:10}" for name in COLUMNS))
    for problem in (problem for count in counts.values() for problem in count["problems"]):
        print(problem)
    record: dict[str, Any] = {"settings": vars(options), "seconds": seconds, "all": total}
    print(save("kills", {**record, "commands": counts}))


if __name__ == "__main__":
    main()
