"""The pools that a training stage draws its slates from: queries, candidates and targets.

The student that an earlier stage ended in may find candidates, and choose queries to train on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from retrieval_kd.config.queries import Unlabelled
from retrieval_kd.config.training import Select, TrainingStage
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.scores import Scores, ScoreTable
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.pipeline.ensemble import Ensemble
from retrieval_kd.pipeline.queries import Queries, sample
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.training.batches.pools import Pools, build_pools
from retrieval_kd.training.batches.selection import (
    denoised,
    pool_scores,
    select_pools,
    without_false_negatives,
)
from retrieval_kd.training.job import Groups


def stage_pools(
    stage: TrainingStage,
    ensemble: Ensemble,
    start: str,
    drops: Drops,
    *,
    max_length: int | None = None,
) -> tuple[Pools, Groups]:
    """Build the pools of one training stage, and the shares of its parts.

    Raises:
        InputError: no query is left to train on.
    """
    pools: list[Pools] = []
    groups: dict[str, tuple[int, int, float]] = {}

    def add(name: str, more: Pools, share: float) -> None:
        first = sum(map(len, pools))
        groups[name] = (first, first + len(more), share)
        pools.append(more)

    student = EarlierStudent(ensemble.collection, start, max_length)
    drawn = draws_unlabelled(ensemble.unlabelled, stage)
    for part in ["train", "unlabelled"] if drawn else ["train"]:
        if drawn and not ensemble.queries(part).texts:
            add(part, Pools.of([]), 0.0)  # a run without a train split
            continue
        made = _part_pools(stage, ensemble, student, part, drops)
        share = 1.0
        if ensemble.unlabelled is not None and drawn:
            share = ensemble.unlabelled.share
            share = share if part == "unlabelled" else 1 - share
        if stage.denoised and part == "train":
            sure = denoised(made, stage.denoised.below, stage.denoised.above, drops)
            sure_share = share * stage.denoised.share
            add("denoised", sure, sure_share)
            share -= sure_share
        add(part, made, share)
    return Pools.joined([some for some in pools if len(some)]), groups


def _part_pools(
    stage: TrainingStage, ensemble: Ensemble, student: EarlierStudent, part: str, drops: Drops
) -> Pools:
    queries = fewer_judged(ensemble.queries(part), stage.judged)
    texts, documents = queries.texts, ensemble.collection.documents
    candidates = ScoreTable.of(ensemble.candidates(part), documents)
    if stage.confused and part == "train":
        texts = student.confused_by(queries, stage.confused, drops)
    if stage.refresh:
        candidates = student.refreshed(queries, texts, candidates, stage.refresh)
    candidates = candidates.of_queries(texts)
    # Without a teacher in the objective, its order must not choose the negatives either.
    fused = None
    if stage.needs_teacher_scores:
        fused = ensemble.fused(part, drops, candidates, stage.teachers)
    members: list[Scores] = []
    if any(term.asks_members for term in stage.objective):
        named = {number for term in stage.objective for number in term.members}
        members = ensemble.one_by_one(part, candidates, stage.teachers, named)
    pairs = None
    if stage.pairs_of is not None:
        pairs = ensemble.pairs(part, stage.pairs_of, candidates)
    pools = build_pools(
        texts,
        candidates,
        ensemble.collection,
        queries.qrels,
        fused,
        drops,
        judged_only=not any(term.learns_from == "itself" for term in stage.objective),
        members=members,
        sources=queries.sources,
        pairs=pairs,
    )
    if stage.false_negatives is not None:
        pools = without_false_negatives(pools, stage.false_negatives, drops)
    return student.selected(stage.select, pools, drops) if stage.select else pools


def draws_unlabelled(unlabelled: Unlabelled | None, stage: TrainingStage) -> bool:
    """Whether there are unlabelled queries that the stage draws slates of."""
    drawn = unlabelled is not None and stage.uses_unlabelled and stage.learns_unjudged
    return drawn and not stage.texts


def drawn_parts(unlabelled: Unlabelled | None, stage: TrainingStage) -> list[str]:
    """The parts of a run's queries that a stage draws slates of."""
    return ["train", *(["unlabelled"] if draws_unlabelled(unlabelled, stage) else [])]


def fewer_judged(queries: Queries, most: int | None) -> Queries:
    """Keep the judgments of at most `most` queries, the same ones for every seed.

    Example:
        >>> some = Queries({"a": "x", "b": "y"}, {"a": {"d": 1}, "b": {"d": 1}}, {})
        >>> len(fewer_judged(some, 1).qrels), len(fewer_judged(some, None).qrels)
        (1, 2)
    """
    kept = sample({q: queries.texts[q] for q in queries.qrels}, most, 5)
    return replace(queries, qrels={q: queries.qrels[q] for q in kept})


@dataclass(frozen=True)
class EarlierStudent:
    """The student as a stage starts, which may choose queries and find candidates."""

    collection: Collection
    model: str
    max_length: int | None

    def confused_by(self, queries: Queries, depth: int, drops: Drops) -> dict[str, str]:
        """Keep queries whose relevant document it finds among `depth`, but not first (PROD)."""
        run = retrieve(
            self.collection, queries.texts, self.model, depth, max_length=self.max_length
        )
        kept = {}
        for query, text in queries.texts.items():
            gains = queries.qrels.get(query, {})
            relevant = [gains.get(document, 0) > 0 for document in run.results.get(query, {})]
            if any(relevant[1:]) and not relevant[0]:
                kept[query] = text
            else:
                drops.add("query that does not confuse the student", query)
        if not kept:
            raise InputError(
                f"no query confuses the student: none has its relevant document among {depth}, but "
                "not first",
                remedy="raise the stage's `confused`, or leave it out",
            )
        return kept

    def selected(self, select: Select, pools: Pools, drops: Drops) -> Pools:
        """Keep a share of the queries, by a criterion on the student's scores."""
        documents = self.collection.documents
        scores, temperature = pool_scores(self.model, pools, documents, max_length=self.max_length)
        kept = select_pools(pools, scores, select.share, select.by, student_temperature=temperature)
        names = {pool.query for pool in kept}
        for pool in pools:
            if pool.query not in names:
                drops.add(f"query not among the most by {select.by}", pool.query[:40])
        return kept

    def refreshed(
        self, queries: Queries, texts: Mapping[str, str], candidates: Scores, depth: int
    ) -> ScoreTable:
        """Put the student's own best `depth` documents before each query's candidates."""
        run = retrieve(self.collection, texts, self.model, depth + 1, max_length=self.max_length)
        merged = {}
        for query in texts:
            results = run.results.get(query, {})
            own = {d: s for d, s in results.items() if d != queries.sources.get(query)}
            merged[query] = {**dict(list(own.items())[:depth]), **candidates.get(query, {})}
        return ScoreTable.of(merged, self.collection.documents)
