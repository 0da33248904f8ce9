"""The plan of a run as JSON: for programs, and in the run's folder to stand beside what it took."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval_kd.files import write_json
from retrieval_kd.pipeline.context import PARTS
from retrieval_kd.pipeline.forecast.calibrate import machine
from retrieval_kd.pipeline.forecast.forecast import Forecast, StageForecast
from retrieval_kd.pipeline.forecast.gpus import GPU, UTILISATION
from retrieval_kd.pipeline.forecast.savings import Saving
from retrieval_kd.pipeline.forecast.took import FORMAT, read_plan

UNITS = {
    "seconds": "s of wall-clock time on this machine",
    "tokens": "tokens",
    "operations": "floating-point operations",
    "disk_bytes": "bytes, at most",
    "memory_bytes": "bytes of models, optimizer and activations by formula; a process holds more",
    "price": "currency of the price",
    "server_price": "currency of the server's prices",
    "share": "of the seconds that remain, no unit",
}
# what a stage does → the name of its count
COUNTS = {
    "documents encoded": "documents_encoded", "queries encoded": "queries_encoded",
    "words encoded": "words_encoded", "pairs scored": "pairs", "questions asked": "questions",
    "training steps": "steps", "points of curves": "curve_points", "layers tried": "layers_tried",
    "queries searched": "queries_searched", "scores read": "scores_read",
}  # fmt: skip


def to_json(
    made: Forecast,
    offers: list[Saving],
    gpus: list[GPU],
    *,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Return the plan; `UNITS` names each number's unit."""
    hours = made.seconds / 3600
    return {
        "format": FORMAT,
        "name": made.config.name,
        "collection": {
            "documents": made.amounts.documents,
            "queries": {part: made.amounts.query_count(part) for part in PARTS},
            "candidates_known": made.amounts.has_candidates,
        },
        "stages": [_stage(stage) for stage in made.stages],
        "total": {
            "seconds": round(made.seconds, 1),
            "operations": made.flops,
            "disk_bytes": round(made.disk),
            "memory_bytes": round(made.memory),
            "price": None if price_per_hour is None else round(hours * price_per_hour, 4),
            "server_price": made.server_price,
            **{name: made.count(what) for what, name in COUNTS.items()},
        },
        "price_per_hour": price_per_hour,
        "gpus": [_gpu(made, gpu, price_per_hour) for gpu in gpus],
        "savings": [asdict(saving) for saving in offers],
        "not_measured": made.failed,
        "machine": machine(),
        "units": UNITS,
    }


def _stage(stage: StageForecast) -> dict[str, Any]:
    work, calls = stage.work, stage.work.calls
    counts = {name: number for what, name in COUNTS.items() if (number := work.count(what))}
    return {
        "name": stage.name,
        "title": stage.title,
        "key": stage.key,
        "done": stage.is_done,
        "took_seconds": stage.took,
        "seconds": None if stage.is_done else round(stage.seconds, 2),
        "estimated": stage.estimated,
        "at_most": work.at_most,
        "counts": counts,
        "tokens": round(work.tokens),
        "operations": work.flops,
        "disk_bytes": round(work.disk),
        "memory_bytes": round(work.memory),
        "server": None if calls is None else asdict(calls),
    }


def _gpu(made: Forecast, gpu: GPU, price_per_hour: float | None) -> dict[str, Any]:
    seconds = made.seconds_on(gpu)
    return {
        "name": gpu.name,
        "estimate": True,
        "seconds": round(seconds, 1),
        "fits": made.memory <= gpu.memory,
        "peak": gpu.peak,
        "utilisation": UTILISATION,
        "price": None if price_per_hour is None else round(seconds / 3600 * price_per_hour, 4),
    }


def write_plan(record: dict[str, Any], path: Path) -> None:
    """Write the plan; of stages that are done, what an earlier plan said is kept."""
    before = {stage["name"]: stage for stage in read_plan(path).get("stages", [])}
    stages = [
        before[stage["name"]]
        if stage["done"] and before.get(stage["name"], {}).get("key") == stage["key"]
        else stage
        for stage in record["stages"]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**record, "stages": stages})
