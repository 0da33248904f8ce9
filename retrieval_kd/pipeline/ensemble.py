"""The teacher of `rkd run`: several as one, each tried on dev before the rest is paid for.

Members are named by what they are, not by where their files lie, so a moved run stays the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import and_choosers, chosen_by
from retrieval_kd.data import collection as data
from retrieval_kd.data.runs import with_relevant
from retrieval_kd.errors import Drops
from retrieval_kd.files import read_json, write_json
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.pipeline.members import Members
from retrieval_kd.pipeline.queries import Qrels, Queries
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.targets.combine import Combination, fit_combination, held_out
from retrieval_kd.targets.normalise import Scores, fuse, rerank
from retrieval_kd.teachers.comparing.conclude import AnsweredPairs
from retrieval_kd.workspace import Workspace

WEIGHT_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


class Ensemble:
    """Several teachers as one, by `teacher.fusion`; weights and all else it needs come from dev."""

    def __init__(
        self,
        config: Config,
        work: Workspace,
        collection: data.Collection,
        queries: Callable[[str], Queries],
        candidates: Callable[[str], Scores],
    ) -> None:
        self.config, self.work, self.collection = config, work, collection
        self.queries, self.candidates = queries, candidates
        self._asked = Members(config, work, collection)

    @property
    def members(self) -> list[str]:
        """The teachers' names, the cross-encoder first."""
        return self.config.teacher.members

    def score(self, member: str, parts: Sequence[str]) -> dict[str, Any]:
        """What this teacher is asked of some parts, into the store; nothing is asked twice.

        A teacher that got no weight on dev is asked nothing more, unless a student learns from it
        alone, or it chooses what one of the others is asked: then it goes first. About test queries
        only those with a weight are asked, and who chooses for them.
        """
        if "dev" not in parts and member not in and_choosers(self._used):
            if member not in and_choosers(self._named):
                return {"teacher": member, "skipped": "weight 0 on dev"}
            parts = [part for part in parts if part != "test"]
        by = chosen_by(member)
        before = self.score(by, parts)["scored"] if by else 0
        teacher, pairs, scored, missing = self._asked.open(member), 0, 0, 0
        for part in parts:
            report = self._asked.score_missing(
                member, teacher, self.queries(part).texts, self._wanted(part)
            )
            pairs, scored = pairs + report.pairs, scored + report.scored
            missing += report.missing
        return {
            "teacher": member,
            "fingerprint": teacher.key.fingerprint,
            "pairs": pairs,
            "scored": scored,
            **({"scored_to_choose": before} if before else {}),
            **({"missing": missing} if missing else {}),
        }

    def tune(self) -> dict[str, Any]:
        """Fit on dev how members become one, and their weights, or take given ones; teacher.json.

        Weights that are learnt per query leave nothing for common ones to say: all get 1.
        """
        teacher, qrels, drops = self.config.teacher, self.queries("dev").qrels, Drops()
        lists = {member: self._scores("dev", member) for member in self.members}
        how, method = teacher.fusion, teacher.calibration
        fitted = fit_combination(how, lists, qrels, method)
        weights, tried = teacher.weights, []
        if weights is None and len(lists) > 1 and how != "learned":
            for candidate in itertools.product(WEIGHT_GRID, repeat=len(lists)):
                if abs(sum(candidate) - 1.0) < 1e-9:
                    fused = fitted.fuse(lists, dict(zip(lists, candidate, strict=True)))
                    tried.append((_ndcg(qrels, fused), candidate))
        chosen = list(weights or (max(tried)[1] if tried else [1.0] * len(lists)))
        named = dict(zip(self.members, chosen, strict=True))
        told = {} if how == "z_scores" else {"combination": fitted.as_dict()}
        write_json(self.work.path("teacher.json"), {"weights": named, **told})
        facts = {
            "weights": named,
            "chosen_on_dev": bool(tried),
            "dev_ndcg@10_alone": {m: round(_ndcg(qrels, scores), 4) for m, scores in lists.items()},
            "dev_ndcg@10": round(_ndcg(qrels, self.fused("dev", drops)), 4),
        }
        if how == "z_scores":
            return {**facts, "drops": drops.summary()}
        # What is fitted on dev looks better there than it is, so it is fitted on parts of it too.
        held = held_out(how, lists, named, qrels, method)  # None: too few queries for that
        apart = held and round(_ndcg({query: qrels[query] for query in held}, held), 4)
        return {**facts, "fusion": how, "dev_ndcg@10_held_out": apart, "drops": drops.summary()}

    def fused(
        self,
        part: str,
        drops: Drops,
        candidates: Scores | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Scores:
        """The teacher's targets for a part's candidates, or for other ones; what is new is asked.

        Where z-scores are summed, all of several members are z-normalised, also where only one got
        a weight: the scale of the targets must not depend on which. A single one's stay raw.
        """
        used = {m: w for m, w in weights.items() if w} if weights else self._used
        lists = {member: self._scores(part, member, candidates) for member in used}
        return self._combination.fuse(lists, used, drops, normalise=len(self.members) > 1)

    def one_by_one(
        self,
        part: str,
        candidates: Scores,
        weights: Mapping[str, float] | None = None,
        named: Collection[int] = (),
    ) -> list[Scores]:
        """Each member's scores, z-normalised, in the order of `members`.

        A member without a weight has said nothing, unless its number is in `named`.
        """
        used = {member for member, weight in (weights or self._used).items() if weight}
        asked = [m in used or number in named for number, m in enumerate(self.members)]
        return [
            fuse([self._scores(part, member, candidates)], [1.0], normalise=True) if ask else {}
            for member, ask in zip(self.members, asked, strict=True)
        ]

    def pairs(self, part: str, number: int, candidates: Scores) -> dict[str, AnsweredPairs]:
        """What a pairwise member answered about two candidates at a time; what is new is asked."""
        wanted = self._wanted(part, candidates)
        return self._asked.pairs(self.members[number], self.queries(part).texts, wanted)

    def answer(self, text: str, candidates: Mapping[str, float]) -> None:
        """Ask every teacher that has a weight about one query's candidates, for timing."""
        self._asked.time(self._used, text, list(candidates))

    @property
    def _store(self) -> ScoreStore:
        return self._asked.store

    @property
    def _used(self) -> dict[str, float]:
        """The teachers with a weight, by name."""
        weights = read_json(self.work.path("teacher.json"))["weights"]
        return {member: weight for member, weight in weights.items() if weight}

    @property
    def _named(self) -> set[str]:
        """The teachers that an objective names alone, or a stage has weights of its own for."""
        lessons = [one for training in self.config.students.values() for one in training.all_stages]
        terms = [term for lesson in lessons for term in lesson.objective]
        own = {
            m for one in lessons if one.needs_teacher_scores for m, w in one.teachers.items() if w
        }
        return own | {self.members[number] for term in terms for number in term.named_members}

    @property
    def _combination(self) -> Combination:
        """How they become one."""
        told = read_json(self.work.path("teacher.json")).get("combination")
        return Combination() if told is None else Combination.from_dict(told)

    def _wanted(self, part: str, candidates: Scores | None = None) -> dict[str, list[str]]:
        """A part's candidates; judged relevant documents of the train part too."""
        judged = self.queries(part).qrels if part == "train" else {}
        if candidates is None:
            candidates = {**{query: {} for query in judged}, **self.candidates(part)}
        return with_relevant(candidates, judged, self.collection.documents)

    def _scores(self, part: str, member: str, candidates: Scores | None = None) -> Scores:
        """One teacher's scores of a part; what the store lacks is asked."""
        return self._asked.scores(member, self.queries(part).texts, self._wanted(part, candidates))


def _ndcg(qrels: Qrels, scores: Scores) -> float:
    return evaluate(qrels, {"dev": rerank("dev", scores)}, ["ndcg@10"]).mean("dev", "ndcg@10")
