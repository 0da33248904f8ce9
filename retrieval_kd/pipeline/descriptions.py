"""Sentences of a run: what its stages have to do, what each system is, what its teachers cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval_kd.config.run import Config, merged_system
from retrieval_kd.config.student import LayerChoice
from retrieval_kd.config.training import TrainingStage
from retrieval_kd.evaluation.report.formats import duration
from retrieval_kd.pipeline.pools import drawn_parts
from retrieval_kd.pipeline.train_students import student_folders
from retrieval_kd.students.options import RE_RANKS
from retrieval_kd.teachers.spec import strategy_in
from retrieval_kd.training.objective.terms import Term
from retrieval_kd.workspace import Workspace


def describe_counts(documents: int, queries: Mapping[str, int], at_most: bool) -> str:
    """Say how many documents and queries a run has; see `count_queries`.

    Example:
        >>> describe_counts(2067, {"train": 900, "unlabelled": 4000}, at_most=True)
        '2,067 documents; queries: 900 train, up to 4,000 unlabelled'
    """
    most = {"unlabelled": "up to "} if at_most else {}
    listed = ", ".join(f"{most.get(part, '')}{n:,} {part}" for part, n in queries.items())
    return f"{documents:,} documents; queries: {listed}"


def describe_trainings(config: Config, queries: Mapping[str, int]) -> dict[str, str]:
    """Say what each training has to do, by the name of its stage.

    A batch of more queries than there are is cut, as `TrainingJob` cuts it.
    """
    said = {}
    for name, training in config.students.items():
        for seed in config.seeds:
            folders = student_folders(name, training, seed)
            for folder, stage in zip(folders, training.all_stages, strict=True):
                settings = config.train_settings(training, stage, seed=seed)
                there = sum(queries.get(part, 0) for part in drawn_parts(config.unlabelled, stage))
                batch = settings.batch_queries
                of = f"{min(batch, there)} queries × {settings.slate_size} documents"
                said[f"train:{folder.name}"] = (
                    f"{settings.steps} steps of {f'{batch} texts' if stage.texts else of}"
                )
    return said


def describe_system(
    config: Config, weights: Mapping[str, float], system: str
) -> tuple[str, str, str]:
    """Return a system's label, its description, and its kind."""
    teachers = _weighted(weights)
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
            f"re-ranks the first {depth} of {first_stage} by {teachers}; "
            "latency without the first stage",
            "reranker",
        ),
    }
    if system in fixed:
        return fixed[system]
    student = config.systems[system]
    training = config.students[student]
    objectives = ", then ".join(map(_objective, training.all_stages))
    begin = config.student_for(training)
    start = f"layers {begin.layers} of {begin.base}" if begin.layers else begin.base
    if isinstance(begin.layers, LayerChoice):
        start = f"{begin.layers.keep} layers of {begin.base}, chosen on dev"
    start = begin.start or start
    plain = {"distilled": "distilled", "labels": "labels only"}
    label = f"Student, {plain.get(system, system)}"
    kind = begin.kind.replace("_", "-")
    start = start if begin.kind == "dense" else f"{kind}, of {start}"
    if begin.kind in RE_RANKS:
        objectives += f"; re-ranks the first {depth} of {first_stage}, and latency "
        objectives += "is without the first stage"
    if training.merge and training.merged_with == "start":
        share = training.merge.share
        objectives += "; its weights averaged with those it started from, "
        objectives += "with a share chosen on dev" if share == "dev" else f"its share {share:g}"
    if system.startswith(merged_system(student)):
        objectives += f"; the average of {len(config.seeds)} seeds"
    if "@" in system.removeprefix(student):
        objectives += f"; searched by its first {system.rpartition('@')[2]} dimensions alone"
    return label, f"{start}, trained with {objectives}", kind


def teacher_notes(facts: Mapping[str, Any]) -> list[str]:
    """Describe how well each teacher re-ranks dev queries, alone and together."""
    if "cloze_queries" in facts:
        alone = facts["cloze_ndcg@10_alone"].items()
        found = ", ".join(f"{name} alone {value:.4f}" for name, value in alone)
        return [
            f"Weights are chosen without judgments, on {facts['cloze_queries']} sentences that "
            f"must find the documents they were cut out of: nDCG@10 of {found}, all together "
            f"{facts['cloze_ndcg@10']:.4f}."
        ]
    alone = facts.get("dev_ndcg@10_alone", {})
    notes = [
        f"On dev queries the teacher {name} alone re-ranks at nDCG@10 {value:.4f}."
        for name, value in alone.items()
    ]
    if facts and "dev_ndcg@10" not in facts:
        return ["There are no dev queries: the teachers weigh the same, or as configured."]
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


def layer_note(student: str, choice: Mapping[str, Any]) -> str:
    """Describe how dev queries chose a student's layers, with all that was tried.

    Example:
        >>> print(layer_note("small", {"kept": [0, 2], "queries": 9, "documents": 30, "tried": [
        ...     {"layers": [0, 1], "ndcg@10": 0.4}, {"layers": [0, 2], "ndcg@10": 0.5}]}))
        small keeps layers 0, 2: untrained, of 2 choices, it ranks 30 documents best for 9 dev \
queries. nDCG@10 of each choice: 0, 2: 0.5000; 0, 1: 0.4000.
    """
    ranked = sorted(choice["tried"], key=lambda one: -(one["ndcg@10"] or 0))
    values = [
        f"{_numbers(one['layers'])}: "
        + ("not tried" if one["ndcg@10"] is None else f"{one['ndcg@10']:.4f}")
        for one in ranked
    ]
    return (
        f"{student} keeps layers {_numbers(choice['kept'])}: untrained, of {len(ranked)} choices, "
        f"it ranks {choice['documents']} documents best for {choice['queries']} dev queries. "
        f"nDCG@10 of each choice: {'; '.join(values)}."
    )


def _numbers(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


def cost_notes(work: Workspace) -> list[str]:
    """Describe how much the teacher scored, and how long it took."""
    scoring = [s.name for s in work.stages if s.name.startswith(("try:", "score:"))]
    pairs = questions = 0
    for name in scoring:
        facts = work.record(name).get("facts", {})
        scored = facts.get("scored", 0)
        pairs += facts.get("scored_to_choose", 0)
        if strategy_in(name.partition(":")[2]) is None:
            pairs += scored
        else:
            questions += scored
    parts = [f"scored {pairs:,} pairs of a query and a document"] * (pairs > 0)
    parts += [f"answered {questions:,} questions about several documents"] * (questions > 0)
    seconds = duration(work.seconds(scoring))
    return [f"The teacher {' and '.join(parts)} in {seconds}."] if parts else []


def gain_sentence(
    student: str, measure: str, means: Mapping[str, float], costs: Mapping[str, Mapping[str, Any]]
) -> str:
    """Say what a student gains and costs, against the encoder as it is.

    Example:
        >>> costs = {"small": {"queries_per_second": 300.0, "bytes_per_document": 1560.0},
        ...          "encoder": {"queries_per_second": 60.0, "bytes_per_document": 1560.0}}
        >>> print(gain_sentence("small", "nDCG@10", {"small": 0.42, "encoder": 0.4}, costs))
        small: nDCG@10 0.420, the encoder 0.400 (+5 %); 5.0 times the encoder's queries per second
    """
    mine, start = means[student], means["encoder"]
    change = f" ({(mine / start - 1) * 100:+.0f} %)" if start else ""
    parts = []
    shown = [("bytes_per_document", "bytes per document")]
    if not costs[student].get("re_ranks"):  # whose latency lacks the first stage
        shown.insert(0, ("queries_per_second", "queries per second"))
    for field, what in shown:
        own, other = costs[student].get(field), costs["encoder"].get(field)
        if own and other and f"{own / other:.1f}" != "1.0":
            parts.append(f"{own / other:.1f} times the encoder's {what}")
    quality = f"{student}: {measure} {mine:.3f}, the encoder {start:.3f}{change}"
    return "; ".join([quality, *parts])


def _weighted(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{weight:g} × {name}" for name, weight in weights.items() if weight)


def _objective(stage: TrainingStage) -> str:
    """The objective of a stage, and its teachers if it has weights of its own."""
    objective = " + ".join(map(_term, stage.objective))
    scores = [t for t in stage.objective if t.learns_from == "teacher" and t.pairs_of is None]
    return f"{objective} by {_weighted(stage.teachers)}" if scores and stage.teachers else objective


def _term(term: Term) -> str:
    by = f" by {', '.join(map(str, term.dimensions))} dimensions" if term.dimensions else ""
    return f"{term.weight:g} {term.label}{by}"
