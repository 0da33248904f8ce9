"""What the systems of `rkd run` cost: size, speed and distillation, from the stages' records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrieval_kd.config import Config
from retrieval_kd.stages import Stages
from retrieval_kd.teacher_calls import teacher_calls
from retrieval_kd.workspace import Workspace

FIELDS = (  # those that the report shows
    "layers", "parameters", "dimensions", "queries_per_second", "latency_ms_p50", "latency_ms_p95",
    "index_bytes", "bytes_per_document", "documents_per_second", "training_seconds",
    "teacher_calls",
)  # fmt: skip


def run_costs(
    config: Config, work: Workspace, stages: Stages, measure: str
) -> dict[str, dict[str, Any]]:
    """System → its costs; of a student those of its first seed.

    What is not known is left out or None, such as the encoding speed of an index whose vectors were
    there already.

    Args:
        measure: the stage that measured latencies.
    """
    timed = work.record(measure).get("facts", {})
    names = ["bm25", "encoder", "teacher", *config.students]
    return {
        name: _index(config, work, name)
        | timed.get(name, {})
        | _distillation(config, work, stages, name)
        for name in names
    }


def _index(config: Config, work: Workspace, system: str) -> dict[str, Any]:
    """Of the model and its index, of which a cross-encoder has none."""
    name = f"{system}-seed{config.seeds[0]}" if system in config.students else system
    facts = work.record(f"search:{name}").get("facts", {})
    if "index_bytes" not in facts:
        return facts
    return facts | {"bytes_per_document": facts["index_bytes"] / max(1, facts["documents"])}


def _distillation(config: Config, work: Workspace, stages: Stages, system: str) -> dict[str, Any]:
    """Seconds of a student's training, over all its stages, and what its teachers are asked."""
    training = config.students.get(system)
    if training is None:
        return {}
    folders = [
        stages.student_folders(system, training, config.seeds[0], number)[0]
        for number in range(len(training.lessons))
    ]
    trained = [work.record(f"train:{Path(f).name}").get("facts", {}) for f in folders]
    seconds = [facts.get("seconds") for facts in trained]
    calls = teacher_calls(config, training, stages)
    return {
        "training_seconds": None if None in seconds else round(sum(map(float, seconds)), 1),
        "teacher_calls": sum(calls.values()),
        "teacher_calls_stored": calls["stored"],
        "teacher_calls_live": calls["live"],
    }
