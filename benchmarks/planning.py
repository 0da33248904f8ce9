"""How near `rkd plan` comes to what a run then takes: three configurations, planned, then run.

RETRIEVAL_KD_DATA=FOLDER_WITH_squad.zip python -m benchmarks.planning --work FOLDER

FOLDER is for the runs and a cache of their own, and must be new: a run that is done is not timed.
`--only adapt` runs one; `--processor` counts processor seconds in place of wall-clock ones, for a
machine that others use too (one thread: OMP_NUM_THREADS=1). Writes results/planning.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.measure import save
from retrieval_kd.config.run import load_config
from retrieval_kd.errors import InputError
from retrieval_kd.progress import say

SMALL = ["splits.test_queries=200"]
CONFIGURATIONS = {
    "quickstart": ["configs/quickstart.yaml", *SMALL, "unlabelled.limit=600",
                   "students.saturated=null"],
    "adapt": ["configs/adapt.yaml", "collection=squad", *SMALL, "unlabelled.limit=1000",
              "first_stage.depth=30", "students.static=null"],
    "smaller": ["configs/smaller.yaml", "collection=squad", *SMALL, "splits.dev_queries=50",
                "splits.train_queries=600", "unlabelled.limit=500", "train.steps=40",
                "train.eval_steps=40", "students.staged.stages.0.train.steps=60",
                "students.ranking=null", "compare=[staged,usual]"],
}  # fmt: skip


def main() -> None:
    """Plan and run each configuration, and save planned beside taken seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="new folder for runs and cache")
    parser.add_argument("--only", choices=CONFIGURATIONS, nargs="*", default=list(CONFIGURATIONS))
    parser.add_argument("--processor", action="store_true", help="processor seconds, not wall")
    arguments = parser.parse_args()
    if arguments.work.exists():
        raise InputError("this folder exists", file=arguments.work, remedy="name a new one")
    if arguments.processor:
        count_processor_seconds()
    records = {}
    for name in arguments.only:
        os.environ["RETRIEVAL_KD_CACHE"] = str(arguments.work / f"cache-{name}")
        records[name] = measure(name, arguments.work / name)
        show(name, records[name])
        clock = "processor" if arguments.processor else "wall"
        path = save("planning", {"clock": clock, "load": os.getloadavg()[0], "runs": records})
    say(path)


def count_processor_seconds() -> None:
    """Let what times stages and speeds read the processor's clock of this process."""
    from retrieval_kd import workspace
    from retrieval_kd.indexing import build, dense
    from retrieval_kd.pipeline.forecast import amounts, calibrate
    from retrieval_kd.training import train_table
    from retrieval_kd.training.trainer import engine

    clock = SimpleNamespace(monotonic=time.process_time, perf_counter=time.process_time)
    for module in (workspace, build, dense, amounts, calibrate, train_table, engine):
        module.time = clock  # type: ignore[attr-defined]


def measure(name: str, out: Path) -> dict[str, Any]:
    """Plan a run, then run it."""
    from retrieval_kd.pipeline.forecast.forecast import PROCESS_BYTES, forecast
    from retrieval_kd.pipeline.plan import planned, run

    file, *overrides = CONFIGURATIONS[name]
    config = load_config(file, [*overrides, f"out={out}"])
    start = time.perf_counter()
    made = forecast(config)
    planning = time.perf_counter() - start
    peaks: dict[str, int] = {}
    current: list[str] = []

    def before(stage: Any, done: bool, number: str) -> None:
        say(f"{number} {stage.title}", error=True)
        peaks.update({name: peak_memory() for name in current})
        current[:] = [stage.title]
        forget_peak()

    run(config, before)
    peaks.update({name: peak_memory() for name in current})
    work = planned(config).work
    stages = {
        stage.title: {
            "planned": round(stage.seconds, 1),
            "took": work.record(stage.name)["seconds"],
            "memory_planned": round(PROCESS_BYTES + stage.work.memory),
            "memory_peak": peaks[stage.title],
            "works": {
                each.what: round(seconds, 1)
                for each, seconds in zip(stage.work.works, stage.by_work, strict=True)
            },
        }
        for stage in made.stages
    }
    took = sum(stage["took"] for stage in stages.values())
    return {
        "configuration": CONFIGURATIONS[name],
        "planning_seconds": round(planning, 1),
        "planned": round(made.seconds, 1),
        "took": round(took, 1),
        "planned_by_taken": round(made.seconds / took, 3),
        "operations": made.flops,
        "memory_planned": round(made.memory),
        "memory_peak": max(peaks.values()),
        "stages": stages,
    }


def forget_peak() -> None:
    """Let the peak of this process begin at what it holds now; Linux alone can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Most memory (bytes) that this process has held since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def show(name: str, record: dict[str, Any]) -> None:
    """Print one configuration's stages."""
    say(f"{name}: planned {record['planned']} s, took {record['took']} s, "
        f"{record['planned_by_taken']:.2f}; planning {record['planning_seconds']} s")  # fmt: skip
    for title, stage in record["stages"].items():
        say(f"  {title:50} {stage['planned']:8.1f} {stage['took']:8.1f}")


if __name__ == "__main__":
    main()
