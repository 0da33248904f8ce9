"""What the systems of `rkd run` cost: size, speed and distillation, from the stages' records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import and_choosers
from retrieval_kd.config.training import Training, TrainingStage
from retrieval_kd.files import read_json
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.pools import draws_unlabelled
from retrieval_kd.pipeline.students import student_folders
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.teachers.spec import strategy_in
from retrieval_kd.workspace import Workspace

FIELDS = (  # those that the report shows
    "layers", "parameters", "dimensions", "queries_per_second", "latency_ms_p50", "latency_ms_p95",
    "index_bytes", "bytes_per_document", "documents_per_second", "training_seconds",
    "teacher_calls",
)  # fmt: skip


def run_costs(context: RunContext, measure: str) -> dict[str, dict[str, Any]]:
    """System → its costs; of a student those of its first seed.

    What is not known is left out or None, such as the encoding speed of an index whose vectors were
    there already.

    Args:
        measure: the stage that measured latencies.
    """
    config, work = context.config, context.work
    timed = work.record(measure).get("facts", {})
    names = ["bm25", "encoder", "teacher", *config.systems]
    return {
        name: _index(config, work, name)
        | timed.get(name, {})
        | ({"re_ranks": True} if re_ranks(config, name) else {})
        | _distillation(context, name)
        for name in names
    }


def re_ranks(config: Config, system: str) -> bool:
    """Whether a system orders what the first stage found, without which its latency is."""
    training = config.students.get(system)
    return (
        system == "teacher" if training is None else config.student_for(training).kind in RE_RANKS
    )


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


def _distillation(context: RunContext, system: str) -> dict[str, Any]:
    """Seconds of a student's training, over all its stages, and what its teachers are asked."""
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
    """`stored`: pairs, questions and texts of stored answers; `live`: texts or pairs of live ones.

    Of one seed. Stored teachers are asked for a score of each pair, or what their strategy wants to
    know of each query's list; models whose vectors are learnt are given every text. All of it
    counts once for each teacher, in however many stages it is learnt from, and also where the
    answer was stored before. Upper bounds: a stage that refreshes its candidates may find some that
    it had, a live encoder is given a document once where slates of a batch share it. What is asked
    again because an answer was garbled or a call failed comes on top. Pairs of dev and test queries
    are none of the training's.
    """
    config = context.config
    stored = live = 0
    asked: set[tuple[str, str]] = set()
    for stage in training.all_stages:
        settings = config.train_settings(training, stage, seed=config.seeds[0])
        queries = settings.steps * settings.batch_queries
        for teacher in stage.live.values():
            texts = 0 if teacher.kind == "cross_encoder" else queries
            live += queries * settings.slate_size + texts
        re_ranks = config.student_for(training).kind in RE_RANKS
        for _, way in read_along(stage):
            texts = 0 if re_ranks or way == "feature_imitation" else queries
            live += queries * settings.slate_size + texts
        members = asked_members(stage, context)
        unlabelled = draws_unlabelled(config.unlabelled, stage)
        parts = ["train", "unlabelled"] if unlabelled else ["train"]
        for part in parts if members else []:
            depths = _depths(context, part)
            for member in members:
                if (member, part) not in asked:
                    asked.add((member, part))
                    stored += calls_of(member, depths)
                if stage.refresh:
                    stored += _calls_of_refreshed(member, depths, stage.refresh)
        for model in imitated(stage):
            for part in ("documents", *parts):
                if (f"vectors of {model}", part) not in asked:
                    asked.add((f"vectors of {model}", part))
                    stored += _texts(context, part)
    return {"stored": stored, "live": live}


def calls_of(member: str, depths: Iterable[int]) -> int:
    """How often a stored teacher is asked about lists of so many candidates, at most.

    Example:
        >>> calls_of("org/model", [3, 2]), calls_of("pairwise:org/model", [3, 2])
        (5, 8)
    """
    strategy = strategy_in(member)
    return sum(depths) if strategy is None else sum(map(strategy.most_requests, depths))


def imitated(stage: TrainingStage) -> list[str]:
    """The models whose vectors a stage learns."""
    return list(dict.fromkeys(term.teacher for term in stage.objective if term.kind == "vectors"))


def read_along(stage: TrainingStage) -> list[tuple[str, str]]:
    """The models whose states a stage learns; one that reads in several ways once for each."""
    terms = [term for term in stage.objective if term.kind == "states"]
    ways = [(term.teacher, term.name if term.reads_texts else "tokens") for term in terms]
    return list(dict.fromkeys(ways))


def asked_members(stage: TrainingStage, context: RunContext) -> list[str]:
    """The stored teachers that a stage wants scores of, and those that choose for them."""
    if not stage.needs_teacher_scores and not any(term.asks_members for term in stage.objective):
        return []
    members = context.config.teacher.members
    weights = stage.teachers or read_json(context.work.path("teacher.json"))["weights"]
    named = {number for term in stage.objective for number in term.named_members}
    return and_choosers(m for n, m in enumerate(members) if weights.get(m) or n in named)


def _calls_of_refreshed(member: str, depths: Sequence[int], more: int) -> int:
    """What is new where each list has so many more; a strategy may ask all of a longer one."""
    if strategy_in(member) is None:
        return more * len(depths)
    return calls_of(member, [depth + more for depth in depths])


def _texts(context: RunContext, part: str) -> int:
    """The collection's `documents`, or a part's queries."""
    return len(context.collection.documents if part == "documents" else context.queries(part).texts)


def _depths(context: RunContext, part: str) -> list[int]:
    """Of each query, its candidates and, of the train part, judged relevant others."""
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
