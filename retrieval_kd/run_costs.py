"""What the systems of `rkd run` cost: size, speed and distillation, from the stages' records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval_kd.config import Config
from retrieval_kd.stages import Stages
from retrieval_kd.students.options import RE_RANKS
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
    names = ["bm25", "encoder", "teacher", *config.systems]
    return {
        name: _index(config, work, name)
        | timed.get(name, {})
        | ({"re_ranks": True} if re_ranks(config, name) else {})
        | _distillation(config, work, stages, name)
        for name in names
    }


def re_ranks(config: Config, system: str) -> bool:
    """Whether a system orders what the first stage found, without which its latency is."""
    training = config.students.get(system)
    return system == "teacher" if training is None else config.student_of(training).kind in RE_RANKS


def cost_sentence(student: str, costs: Mapping[str, Mapping[str, Any]], of_encoder: bool) -> str:
    """What a student costs beside the encoder and the teacher.

    Args:
        of_encoder: whether it was made of the encoder that is shown as it is.

    Example:
        >>> costs = {"small": {"layers": 3, "parameters": 17.4e6, "latency_ms_p50": 5.9},
        ...          "encoder": {"layers": 6, "parameters": 22.7e6, "latency_ms_p50": 9.6},
        ...          "teacher": {"latency_ms_p50": 304.0, "re_ranks": True}}
        >>> one, other = (cost_sentence("small", costs, made) for made in (True, False))
        >>> print(one.partition(" (")[0])
        3 of 6 layers and 17.4 M of 22.7 M parameters; 5.9 against 9.6 ms a query
        >>> print(other.partition("; the teacher")[0])
        3 layers, 17.4 M parameters, 5.9 ms a query (the encoder: 6, 22.7 M, 9.6 ms
    """
    mine, encoder = costs[student], costs["encoder"]
    layers, full = mine["layers"], encoder["layers"]
    size, full_size = (f"{facts['parameters'] / 1e6:.1f} M" for facts in (mine, encoder))
    took, full_took = (f"{facts['latency_ms_p50']:.1f}" for facts in (mine, encoder))
    teacher = f"the teacher re-ranks in {costs['teacher']['latency_ms_p50']:.0f} ms"
    if mine.get("re_ranks") or not of_encoder:  # what is of another kind is no part of it
        query = "to re-rank a query's candidates" if mine.get("re_ranks") else "a query"
        return (
            f"{layers} layers, {size} parameters, {took} ms {query} "
            f"(the encoder: {full}, {full_size}, {full_took} ms; {teacher})."
        )
    return (
        f"{layers} of {full} layers and {size} of {full_size} parameters; {took} against "
        f"{full_took} ms a query (against the encoder it was made of; {teacher})."
    )


def _index(config: Config, work: Workspace, system: str) -> dict[str, Any]:
    """Of the model and its index, of which a cross-encoder has none."""
    name = f"{system}-seed{config.seeds[0]}" if system in config.systems else system
    facts = work.record(f"search:{name}").get("facts", {})
    if "index_bytes" not in facts:
        return facts
    return facts | {"bytes_per_document": facts["index_bytes"] / max(1, facts["documents"])}


def _distillation(config: Config, work: Workspace, stages: Stages, system: str) -> dict[str, Any]:
    """Seconds of a student's training, over all its stages, and what its teachers are asked."""
    if system not in config.systems:
        return {}
    student = config.systems[system]
    training = config.students[student]
    folders = [
        stages.student_folders(student, training, config.seeds[0], number)[0]
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
