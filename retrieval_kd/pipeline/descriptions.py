"""What a report says of a run in words: what each system is, who taught, what that took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.training import TrainingStage
from retrieval_kd.evaluation.report.formats import duration
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.teachers.spec import strategy_in
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.workspace import Workspace


def describe_system(
    config: Config, weights: Mapping[str, float], system: str
) -> tuple[str, str, str]:
    """A system's label, what it is, and its kind.

    Args:
        weights: of the teachers, by name.
    """
    used = _weighed(weights)
    depth, first_stage = config.first_stage.depth, config.first_stage.with_
    fixed = {
        "bm25": ("BM25", "bm25s, its default parameters", "lexical"),
        "encoder": (
            "Encoder as it is",
            f"{config.encoder}, cut at {config.student.max_length} tokens",
            "dense",
        ),
        "teacher": (
            "Teacher, re-ranking",
            f"re-ranks the first {depth} of {first_stage} by {used}; "
            "latency without the first stage",
            "reranker",
        ),
    }
    if system in fixed:
        return fixed[system]
    student = config.systems[system]
    training = config.students[student]
    told = ", then ".join(map(_taught, training.all_stages))
    begin = config.student_for(training)
    start = f"layers {begin.layers} of {begin.base}" if begin.layers else begin.base
    plain = {"distilled": "distilled", "labels": "labels only"}
    label = f"Student, {plain.get(system, system)}"
    kind = begin.kind.replace("_", "-")
    start = start if begin.kind == "dense" else f"{kind}, of {start}"
    if begin.kind in RE_RANKS:
        told += f"; re-ranks the first {depth} of {first_stage}, and latency "
        told += "is without the first stage"
    if system != student:
        told += f"; searched by its first {system.rpartition('@')[2]} dimensions alone"
    return label, f"{start}, trained with {told}", kind


def teacher_notes(facts: Mapping[str, Any]) -> list[str]:
    """How well each teacher re-ranks dev queries, alone and together.

    Args:
        facts: what came out where the teacher was tuned; empty if it was not yet.
    """
    alone = facts.get("dev_ndcg@10_alone", {})
    notes = [
        f"On dev queries the teacher {name} alone re-ranks at nDCG@10 {value:.4f}."
        for name, value in alone.items()
    ]
    if facts:
        how = "chosen on these queries" if facts["chosen_on_dev"] else "as configured"
        how = "learnt for each query on these" if facts.get("fusion") == "learned" else how
        notes.append(f"All together: {facts['dev_ndcg@10']:.4f}, with weights {how}.")
        if "dev_ndcg@10_held_out" in facts:
            apart = facts["dev_ndcg@10_held_out"]
            one = f"Made one by `{facts['fusion']}`, fitted on"
            notes.append(
                f"{one} all of them: too few to see how that does on queries it was not fitted on."
                if apart is None
                else f"{one} the other four fifths of them: {apart:.4f}."
            )
    return notes


def cost_notes(work: Workspace) -> list[str]:
    """What the teacher's scores cost."""
    asked = [s.name for s in work.stages if s.name.startswith(("try:", "score:"))]
    pairs = questions = 0
    for name in asked:
        facts = work.record(name).get("facts", {})
        scored = facts.get("scored", 0)
        pairs += facts.get("scored_to_choose", 0)
        if strategy_in(name.partition(":")[2]) is None:
            pairs += scored
        else:
            questions += scored
    told = [f"scored {pairs:,} pairs of a query and a document"] * (pairs > 0)
    told += [f"answered {questions:,} questions about several documents"] * (questions > 0)
    seconds = duration(work.seconds(asked))
    return [f"The teacher {' and '.join(told)} in {seconds}."] if told else []


def _weighed(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{weight:g} × {name}" for name, weight in weights.items() if weight)


def _taught(stage: TrainingStage) -> str:
    """The objective of a stage, and by which teachers where it has weights of its own."""
    objective = " + ".join(map(_told, stage.objective))
    scores = [t for t in stage.objective if t.learns_from == "teacher" and t.pairs_of is None]
    return f"{objective} by {_weighed(stage.teachers)}" if scores and stage.teachers else objective


def _told(term: Term) -> str:
    by = f" by {', '.join(map(str, term.dimensions))} dimensions" if term.dimensions else ""
    return f"{term.weight:g} {term.label}{by}"
