"""Builds an index in child processes that are killed with SIGKILL at random moments.

Run by `test_kill.py` as `python -m tests.indexing.killed COLLECTION MODEL FOLDER`; it imports
once, then forks, so that a kill costs no imports.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrieval_kd.data.collection import open_collection
from retrieval_kd.indexing import build, parts
from retrieval_kd.indexing.spec import IndexSpec
from retrieval_kd.models import encode

SPEC = IndexSpec(factory="IVF4,Flat", search="nprobe=2", threads=1)


def slowed(function: Callable[..., Any], seconds: float, log: Path | None = None) -> Any:
    def wrapper(*arguments: Any, **more: Any) -> Any:
        time.sleep(seconds)
        result = function(*arguments, **more)
        if log is not None:
            with open(log, "a") as handle:
                handle.write(f"{arguments[0].name}\n")
        return result

    return wrapper


def attempt(collection: str, model: str, home: Path, seconds: float | None) -> bool:
    """Build in a child process, killed after `seconds`. True if the build finished."""
    child = os.fork()
    if child == 0:
        os.environ["RETRIEVAL_KD_CACHE"] = str(home / "cache")
        encode._shard_size = lambda: 25  # type: ignore[assignment]
        encode.save_arrays = slowed(encode.save_arrays, 0.05, home / "saved.log")  # type: ignore[assignment]
        encode.merge_arrays = slowed(encode.merge_arrays, 0.05)  # type: ignore[assignment]
        parts.add_rows = slowed(parts.add_rows, 0.1)  # type: ignore[assignment]
        build.write_ids = slowed(build.write_ids, 0.1)  # type: ignore[assignment]
        build.build_index(open_collection(collection), model, SPEC, home / "index")
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status == 0


def main() -> None:
    collection, model, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    for name in ("whole", "killed"):
        (folder / name).mkdir(parents=True)
    start = time.monotonic()
    assert attempt(collection, model, folder / "whole", None)
    whole = time.monotonic() - start
    rng = random.Random(int(os.environ.get("KILL_SEED", "1")))
    kills = 0
    latest = 0.5  # share of the whole build's time; the first kill must come early enough
    while kills < 6:
        if attempt(collection, model, folder / "killed", rng.uniform(0.1, latest) * whole):
            break
        kills, latest = kills + 1, 1.0
    assert attempt(collection, model, folder / "killed", None)
    print(kills)


if __name__ == "__main__":
    main()
