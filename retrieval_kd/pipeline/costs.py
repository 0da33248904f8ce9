"""The costs of a run's systems: latency, size, training and calls of teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import and_choosers
from retrieval_kd.config.training import Training, TrainingStage
from retrieval_kd.evaluation.efficiency import latencies
from retrieval_kd.files import read_json
from retrieval_kd.indexing.index import Index
from retrieval_kd.pipeline.context import RunContext
from retrieval_kd.pipeline.pools import draws_unlabelled
from retrieval_kd.pipeline.stages import score_candidates
from retrieval_kd.pipeline.train_students import student_folders
from retrieval_kd.retrieval.bm25 import BM25, DEFAULT
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.teachers.pointwise.cross_encoder import CrossEncoderTeacher
from retrieval_kd.teachers.spec import strategy_in

TIMED_QUERIES = 40


def measure_latency(context: RunContext) -> dict[str, Any]:
    """Measure the latency of each system on some test queries, those of one seed for students.

    The teacher and cross-encoder students re-rank the first stage's candidates; the time of the
    first stage is not included.
    """
    config, test = context.config, context.queries("test")
    chosen = sorted(test.texts)[:TIMED_QUERIES]
    by_query = context.candidates("test")
    candidates = {test.texts[query]: by_query.get(query, {}) for query in chosen}
    bm25 = BM25.open(context.collection.documents, DEFAULT)
    systems: dict[str, Callable[[str], object]] = {
        "bm25": lambda text: bm25.search(text, config.depth),
        "teacher": lambda text: context.ensemble.answer(text, candidates[text]),
    }

    def searching(folder: str) -> Callable[[str], object]:
        index = Index.open(context.work.path("indexes", folder))
        return lambda text: index.search([text], config.depth)

    def re_ranking(folder: str) -> Callable[[str], object]:
        path, length = context.work.path("students", folder), config.student.max_length
        model = CrossEncoderTeacher(str(path), max_length=length)
        return lambda text: score_candidates(
            model, context.collection, {text: text}, {text: candidates[text]}
        )

    systems["encoder"] = searching("encoder")
    for name in config.systems:
        make = re_ranking if re_ranks(config, name) else searching
        systems[name] = make(context.run_names(name)[0])
    return latencies(systems, list(candidates))


def run_costs(context: RunContext, measure: str) -> dict[str, dict[str, Any]]:
    """Return the costs of each system; a student's are those of its first seed.

    Unknown values are left out or None, such as the encoding speed of an index whose vectors were
    cached.
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
    student = config.systems.get(system)
    if student is None:
        return system == "teacher"
    return config.student_for(config.students[student]).kind in RE_RANKS


def _model_costs(context: RunContext, system: str) -> dict[str, Any]:
    """Model and index size (a cross-encoder has no index)."""
    name = context.run_names(system)[0]
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
    # The average of all seeds has cost all their trainings.
    seeds = config.seeds if context.run_names(system) == [system] else config.seeds[:1]
    folders = [f for seed in seeds for f in student_folders(student, training, seed)]
    trained = [context.work.record(f"train:{folder.name}").get("facts", {}) for folder in folders]
    seconds = [facts.get("seconds") for facts in trained]
    calls = teacher_calls(context, training)
    return {
        "training_seconds": None if None in seconds else round(sum(map(float, seconds)), 1),
        "teacher_calls": calls["stored"] + calls["live"] * len(seeds),
        "teacher_calls_stored": calls["stored"],
        "teacher_calls_live": calls["live"] * len(seeds),
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
            depths = candidate_counts(context, part)
            for member in members:
                if (member, part) not in counted:
                    counted.add((member, part))
                    stored += calls_of(member, depths)
                if stage.refresh:
                    stored += _calls_of_refreshed(member, depths, stage.refresh)
        imitated = {term.teacher for term in stage.objective if term.kind == "vectors"}
        for model in imitated:
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
    weights = stage.teachers or read_json(context.work.path("teacher.json"), "weights")["weights"]
    alone = {number for term in stage.objective for number in term.named_members}
    return and_choosers(m for n, m in enumerate(members) if weights.get(m) or n in alone)


def _calls_of_refreshed(member: str, depths: Sequence[int], more: int) -> int:
    """Return the calls that `more` candidates per list add; a strategy repeats the whole list."""
    if strategy_in(member) is None:
        return more * len(depths)
    return calls_of(member, [depth + more for depth in depths])


def _texts(context: RunContext, part: str) -> int:
    """Count the collection's documents (`documents`), or the queries of a part."""
    return len(context.collection.documents if part == "documents" else context.queries(part).texts)


def candidate_counts(context: RunContext, part: str) -> list[int]:
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
