"""The teachers of `rkd run`, which score what the run's store lacks.

Each is tried on dev before the other queries are paid for. Teachers are named by what they are, not
by where their files lie, so that a run can be moved.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import and_choosers, chosen_by
from retrieval_kd.data.collection import Collection
from retrieval_kd.data.rows import Qrels
from retrieval_kd.data.scores import Scores, ScoreTable, with_relevant
from retrieval_kd.errors import Drops, log
from retrieval_kd.files import read_json, write_json
from retrieval_kd.metrics.measures import evaluate
from retrieval_kd.pipeline.ensemble import Ensemble, Fitted
from retrieval_kd.pipeline.queries import Queries
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import ScoreReport
from retrieval_kd.targets.combine import Combination, fit_combination, held_out
from retrieval_kd.targets.normalise import rerank
from retrieval_kd.teachers.comparing.conclude import PairPreferences, conclude_pairs
from retrieval_kd.teachers.kinds import Teacher
from retrieval_kd.teachers.llm.server.budget import Budget
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.model import ServerModel
from retrieval_kd.teachers.score import score_and_record, score_query_and_record, scores_of
from retrieval_kd.teachers.spec import open_teacher, parse_spec, strategy_in
from retrieval_kd.workspace import Workspace

WEIGHT_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


class RunEnsemble(Ensemble):
    """The teachers of one run as one; they score what the run's store lacks.

    The weights and the combination are fitted on dev and kept in `teacher.json`.
    """

    def __init__(
        self,
        config: Config,
        work: Workspace,
        collection: Collection,
        queries: Callable[[str], Queries],
        candidates: Callable[[str], Scores],
    ) -> None:
        members = config.teacher.members
        super().__init__(collection, members, queries, candidates, config.unlabelled)
        self.config, self.work = config, work
        self.timed: dict[str, Teacher] = {}  # teachers whose latency is measured

    @cached_property
    def store(self) -> ScoreStore:
        return ScoreStore(self.work.path(self.config.store))

    def score(self, member: str, parts: Sequence[str]) -> dict[str, Any]:
        """Score some parts of the run with this teacher and store the scores.

        Pairs that are already stored are skipped. A teacher that got weight 0 is skipped
        too, unless a student trains on it alone or it chooses what another teacher compares; that
        teacher is then scored first. Test queries are only scored by teachers with a weight and
        those that choose for them.
        """
        if "dev" not in parts and member not in and_choosers(self.used):
            if member not in and_choosers(self.named_alone):
                on = "on cut documents" if self.config.teacher.weights == "cloze" else "on dev"
                return {"teacher": member, "skipped": f"weight 0 {on}"}
            parts = [part for part in parts if part != "test"]
        by = chosen_by(member)
        before = self.score(by, parts)["scored"] if by else 0
        teacher, pairs, scored, missing = self.open(member), 0, 0, 0
        for part in parts:
            report = self._score_missing(
                member, teacher, self.queries(part).texts, self.wanted(part)
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
        """Fit the combination on dev, and the weights unless configured; write teacher.json.

        With weights learnt per query (`learned`), or without dev queries, all common weights are 1.
        """
        teacher, qrels, drops = self.config.teacher, self.queries("dev").qrels, Drops()
        how, method = teacher.fusion, teacher.calibration
        lists = {member: self.scores("dev", member) for member in self.members}
        combination = fit_combination(how, lists, qrels, method)
        chosen_on_dev = bool(qrels) and teacher.weights is None and len(lists) > 1
        chosen_on_dev = chosen_on_dev and how != "learned"
        if chosen_on_dev:
            weights = best_weights(combination, lists, qrels)
        else:
            own = teacher.weights if isinstance(teacher.weights, list) else [1.0] * len(lists)
            weights = dict(zip(self.members, own, strict=True))
        self.keep(weights, combination)
        if not qrels:
            return {"weights": weights, "chosen_on_dev": False}
        facts = {
            "weights": weights,
            "chosen_on_dev": chosen_on_dev,
            "dev_ndcg@10_alone": {m: round(_ndcg(qrels, scores), 4) for m, scores in lists.items()},
            "dev_ndcg@10": round(_ndcg(qrels, self.fused("dev", drops)), 4),
        }
        if how == "z_scores":
            return {**facts, "drops": drops.summary()}
        # A combination fitted on dev looks better there than it is, so that it is also measured on
        # parts of dev that it was not fitted on. None: too few queries for that.
        held = held_out(how, lists, weights, qrels, method)
        apart = held and round(_ndcg({query: qrels[query] for query in held}, held), 4)
        return {**facts, "fusion": how, "dev_ndcg@10_held_out": apart, "drops": drops.summary()}

    def keep(self, weights: dict[str, float], combination: Combination) -> None:
        """Write teacher.json."""
        plain = self.config.teacher.fusion == "z_scores"
        fitted = {} if plain else {"combination": combination.as_dict()}
        write_json(self.work.path("teacher.json"), {"weights": weights, **fitted})

    @property
    def fitted(self) -> Fitted:
        kept = read_json(self.work.path("teacher.json"))
        fitted = kept.get("combination")
        combination = Combination() if fitted is None else Combination.from_dict(fitted)
        return Fitted(kept["weights"], combination)

    def scores(self, part: str, member: str, candidates: Scores | None = None) -> ScoreTable:
        """Return one teacher's scores of a part; pairs that the store lacks are scored first."""
        return self._scores(member, self.queries(part).texts, self.wanted(part, candidates))

    def pairs(self, part: str, number: int, candidates: Scores) -> dict[str, PairPreferences]:
        """Return a pairwise teacher's comparisons; those that the store lacks are made first."""
        member, texts = self.members[number], self.queries(part).texts
        wanted = self.wanted(part, candidates)
        self._scores(member, texts, wanted)
        key = self.open(member).key
        answers = AnswerStore(self.store.folder(key), key)
        chosen, by = self._choose(member, texts, wanted)
        return conclude_pairs(
            self.collection, texts, chosen.ids(), answers, strategy=strategy_in(member), by=by
        )

    def answer(self, text: str, candidates: Mapping[str, float]) -> None:
        """Score one query's candidates with every teacher that has a weight, for timing.

        Teachers that choose pairs for them score too. Nothing is stored.
        """
        scores: dict[str, dict[str, float]] = {}
        for member in and_choosers(self.used) if candidates else ():
            if member not in self.timed:
                self.timed[member] = self.open(member)
            by = chosen_by(member)
            scores[member] = score_query_and_record(
                self.collection,
                text,
                list(candidates),
                self.timed[member],
                self.store,
                scores[by] if by else None,
            )

    @property
    def used(self) -> list[str]:
        """The teachers with a weight."""
        return [member for member, weight in self.fitted.weights.items() if weight]

    @property
    def named_alone(self) -> set[str]:
        """The teachers that an objective names alone, or that a stage has its own weights for."""
        stages = [s for training in self.config.students.values() for s in training.all_stages]
        return {member for stage in stages for member in stage.named_teachers(self.members)}

    def wanted(self, part: str, candidates: Scores | None = None) -> ScoreTable:
        """The candidates of a part; for the train part also its judged relevant documents."""
        judged = self.queries(part).qrels if part == "train" else {}
        documents = self.collection.documents
        if candidates is None:
            found = ScoreTable.of(self.candidates(part), documents)
            candidates = found.of_queries(dict.fromkeys([*judged, *found]))
        return with_relevant(candidates, judged, documents)

    @cached_property
    def _on_server(self) -> dict[str, Any]:
        """What opens teachers on the server; all share the budget of this run."""
        server = self.config.teacher.server
        if server is None:
            return {}
        budget = Budget(server)
        return {
            "open_model": partial(ServerModel, settings=server, budget=budget),
            "open_calls": partial(Calls, server, budget),
        }

    def open(self, member: str) -> Teacher:
        """Open a teacher by its name in the configuration."""
        teacher = self.config.teacher
        spec = member
        if teacher.fit and member == teacher.fitted:
            spec = ("yesno:" if teacher.fit.is_decoder else "") + str(self.work.path("teacher"))
        return open_teacher(
            spec,
            self.collection,
            max_length=self.config.max_length_for(parse_spec(spec).kind),
            **(self._on_server if member in teacher.served else {}),
        )

    def _scores(self, member: str, texts: Mapping[str, str], candidates: ScoreTable) -> ScoreTable:
        teacher = self.open(member)
        chosen, by = self._choose(member, texts, candidates)
        read = partial(
            scores_of,
            self.collection,
            texts,
            chosen,
            self.store,
            teacher.key,
            self.config.teacher.aggregate.get(member),
            strategy=strategy_in(member),
            by=by,
        )
        scores = read()
        if scores.pairs < chosen.pairs:
            self._score_missing(member, teacher, texts, candidates)
            scores = read()
        return scores

    def _score_missing(
        self,
        member: str,
        teacher: Teacher,
        texts: Mapping[str, str],
        candidates: ScoreTable,
    ) -> ScoreReport:
        """Score the candidates that the store lacks, after the teacher that chooses the pairs."""
        chosen, by = self._choose(member, texts, candidates)
        report, _ = score_and_record(
            self.collection, texts, chosen.ids(), teacher, self.store, chooser_scores=by
        )
        for line in report.unanswered("the next run"):
            log.warning("%s: %s", report.teacher, line)
        return report

    def _choose(
        self, member: str, texts: Mapping[str, str], candidates: ScoreTable
    ) -> tuple[ScoreTable, ScoreTable | None]:
        """The candidates of a teacher, and the scores by which its pairs are chosen, if any.

        Candidates without a score of the teacher that chooses are in no pair.
        """
        by = chosen_by(member)
        if by is None:
            return candidates, None
        scores = self._scores(by, texts, candidates)
        chosen = candidates.keep(scores.places(candidates) >= 0)
        return chosen.of_queries(candidates), scores


def best_weights(
    combination: Combination, lists: Mapping[str, Scores], qrels: Qrels
) -> dict[str, float]:
    """Return the weights of the grid, summing to 1, whose fused scores rank judged queries best."""
    tried = []
    for candidate in itertools.product(WEIGHT_GRID, repeat=len(lists)):
        if abs(sum(candidate) - 1.0) < 1e-9:
            fused = combination.fuse(lists, dict(zip(lists, candidate, strict=True)))
            tried.append((_ndcg(qrels, fused), candidate))
    return dict(zip(lists, max(tried)[1], strict=True))


def _ndcg(qrels: Qrels, scores: Scores) -> float:
    return evaluate(qrels, {"dev": rerank("dev", scores)}, ["ndcg@10"]).mean("dev", "ndcg@10")
