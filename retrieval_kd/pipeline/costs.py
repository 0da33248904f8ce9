"""The costs of a run's systems: size, speed, training and calls of teachers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import and_choosers
from retrieval_kd.config.training import Training, TrainingStage
from retrieval_kd.files import read_json
from retrieval_kd.pipeline.context import RunContext, seeded
from retrieval_kd.pipeline.pools import draws_unlabelled
from retrieval_kd.pipeline.students import student_folders
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.teachers.spec import strategy_in

FIELDS = (  # shown in the report
    "layers", "parameters", "dimensions", "queries_per_second", "latency_ms_p50", "latency_ms_p95",
    "index_bytes", "bytes_per_document", "documents_per_second", "training_seconds",
    "teacher_calls",
)  # fmt: skip


def run_costs(context: RunContext, measure: str) -> dict[str, dict[str, Any]]:
    """Return the costs of each system; a student's are those of its first seed.

    Unknown values are left out or None, such as the encoding speed of an index whose vectors were
    cached.

    Args:
        measure: the name of the stage that measured latency.
    """
    config, work = context.config, context.work
    latency = work.record(measure).get("facts", {})
    names = ["bm25", "encoder", "teacher", *config.systems]
    return {
        name: _model_costs(context, name)
        | latency.get(name, {})
        | ({"re_ranks": True} if re_ranks(config, name) else {})
        | _training_costs(context, name)
        for name in names
    }


def re_ranks(config: Config, system: str) -> bool:
    """Whether a system re-ranks; its latency then leaves out the first stage."""
    training = config.students.get(system)
    return (
        system == "teacher" if training is None else config.student_for(training).kind in RE_RANKS
    )


def cost_sentence(student: str, costs: Mapping[str, Mapping[str, Any]], of_encoder: bool) -> str:
    """Compare a student's costs with those of the encoder and the teacher, in one sentence.

    Args:
        of_encoder: whether the student started from the encoder that is shown beside it.

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
    if mine.get("re_ranks") or not of_encoder:  # another kind of model is no part of the encoder
        query = "to re-rank a query's candidates" if mine.get("re_ranks") else "a query"
        return (
            f"{layers} layers, {size} parameters, {took} ms {query} "
            f"(the encoder: {full}, {full_size}, {full_took} ms; {teacher})."
        )
    return (
        f"{layers} of {full} layers and {size} of {full_size} parameters; {took} against "
        f"{full_took} ms a query (against the encoder it was made of; {teacher})."
    )


def _model_costs(context: RunContext, system: str) -> dict[str, Any]:
    """Model and index size (a cross-encoder has no index)."""
    config = context.config
    name = seeded(system, config.seeds[0]) if system in config.systems else system
    facts = context.work.record(f"search:{name}").get("facts", {})
    if "index_bytes" not in facts:
        return facts
    return facts | {"bytes_per_document": facts["index_bytes"] / max(1, facts["documents"])}


def _training_costs(context: RunContext, system: str) -> dict[str, Any]:
    """Seconds of a student's training, over all its stages, and calls of its teachers."""
    config = context.config
    if system not in config.systems:
        return {}
    student = config.systems[system]
    training = config.students[student]
    folders = student_folders(student, training, config.seeds[0])
    trained = [context.work.record(f"train:{folder.name}").get("facts", {}) for folder in folders]
    seconds = [facts.get("seconds") for facts in trained]
    calls = teacher_calls(context, training)
    return {
        "training_seconds": None if None in seconds else round(sum(map(float, seconds)), 1),
        "teacher_calls": sum(calls.values()),
        "teacher_calls_stored": calls["stored"],
        "teacher_calls_live": calls["live"],
    }


def teacher_calls(context: RunContext, training: Training) -> dict[str, int]:
    """Count the calls of teachers for one seed of a training: `stored` and `live`.

    Stored: pairs that pointwise teachers score, questions that a comparing teacher's strategy asks
    about each query's list, and all texts for models whose vectors are imitated. Each counts once
    per teacher, however many stages use it, even if the answer was stored before. Live: texts or
    pairs that live teachers read in training.

    These are upper bounds: a stage that refreshes its candidates may find some again, and a live
    encoder reads a document once if slates of a batch share it. Repeated calls after garbled
    answers or failures are not counted, nor are pairs of dev and test queries.
    """
    config = context.config
    stored = live = 0
    counted: set[tuple[str, str]] = set()  # teacher, part
    for stage in training.all_stages:
        settings = config.train_settings(training, stage, seed=config.seeds[0])
        queries = settings.steps * settings.batch_queries
        for teacher in stage.live.values():
            texts = 0 if teacher.kind == "cross_encoder" else queries
            live += queries * settings.slate_size + texts
        re_ranks = config.student_for(training).kind in RE_RANKS
        for _, way in _imitated_states(stage):
            texts = 0 if re_ranks or way == "feature_imitation" else queries
            live += queries * settings.slate_size + texts
        members = _scored_members(stage, context)
        unlabelled = draws_unlabelled(config.unlabelled, stage)
        parts = ["train", "unlabelled"] if unlabelled else ["train"]
        for part in parts if members else []:
            depths = _depths(context, part)
            for member in members:
                if (member, part) not in counted:
                    counted.add((member, part))
                    stored += calls_of(member, depths)
                if stage.refresh:
                    stored += _calls_of_refreshed(member, depths, stage.refresh)
        for model in _imitated(stage):
            for part in ("documents", *parts):
                if (f"vectors of {model}", part) not in counted:
                    counted.add((f"vectors of {model}", part))
                    stored += _texts(context, part)
    return {"stored": stored, "live": live}


def calls_of(member: str, depths: Iterable[int]) -> int:
    """Return how often a stored teacher is called for lists of these depths, at most.

    Example:
        >>> calls_of("org/model", [3, 2]), calls_of("pairwise:org/model", [3, 2])
        (5, 8)
    """
    strategy = strategy_in(member)
    return sum(depths) if strategy is None else sum(map(strategy.most_requests, depths))


def _imitated(stage: TrainingStage) -> list[str]:
    """The models whose vectors a stage imitates."""
    return list(dict.fromkeys(term.teacher for term in stage.objective if term.kind == "vectors"))


def _imitated_states(stage: TrainingStage) -> list[tuple[str, str]]:
    """The models whose hidden states a stage imitates, once for each way they read the batch."""
    terms = [term for term in stage.objective if term.kind == "states"]
    ways = [(term.teacher, term.name if term.reads_texts else "tokens") for term in terms]
    return list(dict.fromkeys(ways))


def _scored_members(stage: TrainingStage, context: RunContext) -> list[str]:
    """The stored teachers whose scores a stage uses, and those that choose their pairs."""
    if not stage.uses_scores:
        return []
    members = context.config.teacher.members
    weights = stage.teachers or read_json(context.work.path("teacher.json"))["weights"]
    named = {number for term in stage.objective for number in term.named_members}
    return and_choosers(m for n, m in enumerate(members) if weights.get(m) or n in named)


def _calls_of_refreshed(member: str, depths: Sequence[int], more: int) -> int:
    """Return the calls that `more` candidates per list add; a strategy repeats the whole list."""
    if strategy_in(member) is None:
        return more * len(depths)
    return calls_of(member, [depth + more for depth in depths])


def _texts(context: RunContext, part: str) -> int:
    """Count the collection's documents (`documents`), or the queries of a part."""
    return len(context.collection.documents if part == "documents" else context.queries(part).texts)


def _depths(context: RunContext, part: str) -> list[int]:
    """Count each query's candidates; in the train part with its other relevant documents."""
    candidates, queries = context.candidates(part), context.queries(part)
    judged = queries.qrels if part == "train" else {}
    wanted = {
        query: {
            *candidates.get(query, {}),
            *(d for d, gain in judged.get(query, {}).items() if gain > 0),
        }
        for query in dict.fromkeys([*queries.texts, *judged])
    }
    return [len(documents) for documents in wanted.values()]
