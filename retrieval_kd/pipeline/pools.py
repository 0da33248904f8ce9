"""What one stage of a training draws its slates from: queries, candidates, targets.

The student so far may find candidates of its own, and say which queries are worth learning from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from retrieval_kd.config.run import Config
from retrieval_kd.config.training import Select, TrainingStage
from retrieval_kd.data.collection import Collection
from retrieval_kd.errors import Drops, InputError
from retrieval_kd.pipeline.ensemble import Ensemble
from retrieval_kd.pipeline.queries import Queries, sample
from retrieval_kd.retrieval.retrieve import retrieve
from retrieval_kd.targets.normalise import Scores
from retrieval_kd.training.batches.sampling import denoised, without_false_negatives
from retrieval_kd.training.batches.selection import pool_scores, select_pools
from retrieval_kd.training.batches.slates import Pool, build_pools


def draws_unlabelled(config: Config, lesson: TrainingStage) -> bool:
    """Whether there are unlabelled queries and they teach a stage something."""
    return bool(config.unlabelled) and lesson.uses_unlabelled and learns_unjudged(lesson)


def learns_unjudged(lesson: TrainingStage) -> bool:
    """Whether queries without judgments teach something here."""
    return any(term.learns_from in ("teacher", "itself") for term in lesson.objective)


def fewer_judged(queries: Queries, most: int | None) -> Queries:
    """Queries of which at most so many keep their judgments; the same ones for every seed.

    Example:
        >>> some = Queries({"a": "x", "b": "y"}, {"a": {"d": 1}, "b": {"d": 1}}, {})
        >>> len(fewer_judged(some, 1).qrels), len(fewer_judged(some, None).qrels)
        (1, 2)
    """
    kept = sample({q: queries.texts[q] for q in queries.qrels}, most, 5)
    return replace(queries, qrels={q: queries.qrels[q] for q in kept})


class TrainingPools:
    """Pools for the stages of one configuration's trainings.

    Args:
        queries, candidates: of a part (`train`, `unlabelled`) of the run.
    """

    def __init__(
        self,
        config: Config,
        collection: Collection,
        ensemble: Ensemble,
        queries: Callable[[str], Queries],
        candidates: Callable[[str], Scores],
    ) -> None:
        self.config, self.collection, self.ensemble = config, collection, ensemble
        self.queries, self.candidates = queries, candidates

    def of(
        self, lesson: TrainingStage, start: str, drops: Drops
    ) -> tuple[list[Pool], dict[str, tuple[int, int, float]]]:
        """What a stage draws its slates from, and the shares of its parts."""
        pools: list[Pool] = []
        groups = {}
        parts = ["train", "unlabelled"] if draws_unlabelled(self.config, lesson) else ["train"]
        # Without a teacher its order must not choose the negatives either.
        taught = lesson.needs_teacher_scores
        singly = any(term.asks_members for term in lesson.objective)
        named = {m for term in lesson.objective for m in term.members}
        paired = lesson.pairs_of
        for part in parts:
            queries = fewer_judged(self.queries(part), lesson.judged)
            candidates = self.candidates(part)
            texts = queries.texts
            if lesson.confused and part == "train":
                texts = self._confusing(queries, start, lesson.confused, drops)
            if lesson.refresh:
                candidates = self._refreshed(queries, texts, candidates, start, lesson.refresh)
            candidates = {query: candidates.get(query, {}) for query in texts}
            weights = lesson.teachers
            made = build_pools(
                texts,
                candidates,
                self.collection,
                queries.qrels,
                self.ensemble.fused(part, drops, candidates, weights) if taught else None,
                drops,
                judged_only=not any(term.learns_from == "itself" for term in lesson.objective),
                members=(
                    self.ensemble.one_by_one(part, candidates, weights, named) if singly else ()
                ),
                sources=queries.sources,
                pairs=None if paired is None else self.ensemble.pairs(part, paired, candidates),
            )
            if lesson.false_negatives is not None:
                made = without_false_negatives(made, lesson.false_negatives, drops)
            if lesson.select:
                made = self._selected(lesson.select, made, start, drops)
            unlabelled = self.config.unlabelled
            share = unlabelled.share if unlabelled and len(parts) > 1 else 1.0
            share = share if part == "unlabelled" or len(parts) == 1 else 1 - share
            if lesson.denoised and part == "train":
                sure = denoised(made, lesson.denoised.below, lesson.denoised.above, drops)
                of_sure = share * lesson.denoised.share
                groups["denoised"] = (len(pools), len(pools) + len(sure), of_sure)
                pools, share = pools + sure, share - of_sure
            groups[part] = (len(pools), len(pools) + len(made), share)
            pools += made
        return pools, groups

    def _confusing(
        self, queries: Queries, student: str, depth: int, drops: Drops
    ) -> dict[str, str]:
        """Queries whose relevant document the student finds, but not first (PROD)."""
        length = self.config.student.max_length
        run = retrieve(self.collection, queries.texts, student, depth, max_length=length)
        kept = {}
        for query, text in queries.texts.items():
            gains = queries.qrels.get(query, {})
            found = [gains.get(document, 0) > 0 for document in run.results.get(query, {})]
            if any(found[1:]) and not found[0]:
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

    def _selected(
        self, select: Select, pools: list[Pool], student: str, drops: Drops
    ) -> list[Pool]:
        """The queries that a stage learns from."""
        length = self.config.student.max_length
        documents = self.collection.documents
        scores, temperature = pool_scores(student, pools, documents, max_length=length)
        kept = select_pools(pools, scores, select.share, select.by, student_temperature=temperature)
        names = {pool.query for pool in kept}
        for pool in pools:
            if pool.query not in names:
                drops.add(f"query not among the most by {select.by}", pool.query[:40])
        return kept

    def _refreshed(
        self,
        queries: Queries,
        texts: Mapping[str, str],
        candidates: Scores,
        student: str,
        depth: int,
    ) -> Scores:
        """Candidates of some queries, those first that the student so far finds itself."""
        length = self.config.student.max_length
        run = retrieve(self.collection, texts, student, depth + 1, max_length=length)
        merged = {}
        for query in texts:
            known = candidates.get(query, {})
            found = run.results.get(query, {})
            own = {d: s for d, s in found.items() if d != queries.sources.get(query)}
            merged[query] = {**dict(list(own.items())[:depth]), **known}
        return merged
