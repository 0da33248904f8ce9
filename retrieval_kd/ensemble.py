"""The teacher of `rkd run`: several as one, each tried on dev before the rest is paid for.

Members are named by what they are, not by where their files lie, so a moved run stays the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import Any

from retrieval_kd.config import Config
from retrieval_kd.data import collection as data
from retrieval_kd.data.runs import with_relevant
from retrieval_kd.errors import Drops, log
from retrieval_kd.evaluation.measures import evaluate
from retrieval_kd.files import read_json, write_json
from retrieval_kd.teachers.answered import AnsweredPairs, answered_pairs
from retrieval_kd.teachers.answers import AnswerStore
from retrieval_kd.teachers.combine import Combination, fit_combination, held_out
from retrieval_kd.teachers.limits import Limits
from retrieval_kd.teachers.on_server import OnServer
from retrieval_kd.teachers.requests import Asker
from retrieval_kd.teachers.score import ScoreReport, Teacher, open_teacher, score, scores_of
from retrieval_kd.teachers.score_job import ask_and_note, calls_of, spent_by
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.teachers.store import ScoreStore
from retrieval_kd.teachers.targets import Scores, fuse, rerank
from retrieval_kd.teachers.usage import record_usage
from retrieval_kd.workspace import Workspace

Qrels = dict[str, dict[str, int]]
ENCODERS = ("dense", "sparse", "multi_vector")  # read documents as the student does
WEIGHT_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Queries:
    """The queries of one part: texts, judgments (none for unlabelled ones) and their source."""

    texts: dict[str, str]
    qrels: Qrels
    sources: dict[str, str]  # unlabelled query → the document it was made of


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

    @property
    def members(self) -> list[str]:
        """The teachers' names, the cross-encoder first."""
        return self.config.teacher.members

    def score(self, member: str, parts: Sequence[str]) -> dict[str, Any]:
        """What this teacher is asked of some parts, into the store; nothing is asked twice.

        A teacher that got no weight on dev is asked nothing more, unless a student learns from it
        alone.
        """
        if "dev" not in parts and member not in {*self._used, *self._named}:
            return {"teacher": member, "skipped": "weight 0 on dev"}
        teacher, pairs, scored, missing = self._open(member), 0, 0, 0
        for part in parts:
            report = self._ask(teacher, self.queries(part).texts, self._wanted(part))
            pairs, scored = pairs + report.pairs, scored + report.scored
            missing += report.missing
        return {"teacher": member, "fingerprint": teacher.key.fingerprint} | {
            "pairs": pairs, "scored": scored, **({"missing": missing} if missing else {})
        }  # fmt: skip

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
        apart = round(_ndcg(qrels, held_out(how, lists, named, qrels, method)), 4)
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
        member, wanted = self.members[number], self._wanted(part, candidates)
        self._scores(part, member, candidates)
        key = self._open(member).key
        answers = AnswerStore(self._store.folder(key), key)
        return answered_pairs(self.collection, self.queries(part).texts, wanted, answers)

    def answer(self, text: str, candidates: Mapping[str, float]) -> None:
        """Ask every teacher that has a weight about one query's candidates, for timing."""
        documents = [self.collection.documents[id] for id in candidates]
        for member in self._used:
            if member not in self._opened:
                self._opened[member] = self._open(member)
            teacher = self._opened[member]
            limits = self._server.limits if self._server else Limits()
            before = spent_by(teacher, 0, 0.0, limits)
            if isinstance(teacher, Teacher):
                teacher.score([text] * len(documents), documents)
            else:
                with TemporaryDirectory() as folder:  # what is stored would not be asked
                    wanted = {"q": list(candidates)}
                    score(self.collection, {"q": text}, wanted, teacher, ScoreStore(folder))
            if calls_of(teacher) is not None:  # a server's calls may have a price
                spent = spent_by(teacher, 0, 0.0, limits).since(before)
                record_usage(self._store.folder(teacher.key), spent)

    @cached_property
    def _opened(self) -> dict[str, Teacher | Asker]:
        return {}

    @cached_property
    def _server(self) -> OnServer | None:
        """Where language models are asked; its limits are of this run."""
        server = self.config.teacher.server
        return None if server is None else server.on_server()

    @cached_property
    def _store(self) -> ScoreStore:
        return ScoreStore(self.work.path("scores"))

    @property
    def _used(self) -> dict[str, float]:
        """The teachers with a weight, by name."""
        weights = read_json(self.work.path("teacher.json"))["weights"]
        return {member: weight for member, weight in weights.items() if weight}

    @property
    def _named(self) -> set[str]:
        """The teachers that some objective names alone."""
        lessons = [one for training in self.config.students.values() for one in training.lessons]
        terms = [term for lesson in lessons for term in lesson.objective]
        named = {self.members[number] for term in terms for number in term.named_members}
        return named | {by for member in named if (by := self._by(member))}

    def _by(self, member: str) -> str | None:
        """The member whose scores choose what this one is asked, if there is one."""
        by = parse_spec(member).options.get("by")
        return by if by in self.members else None

    @property
    def _combination(self) -> Combination:
        """How they become one."""
        told = read_json(self.work.path("teacher.json")).get("combination")
        return Combination() if told is None else Combination.from_dict(told)

    def _open(self, member: str) -> Teacher | Asker:
        teacher, student = self.config.teacher, self.config.student
        spec = member
        if teacher.fit and member == teacher.fitted:
            spec = ("yesno:" if teacher.fit.is_decoder else "") + str(self.work.path("teacher"))
        lengths = {"pointwise": teacher.max_length, **dict.fromkeys(ENCODERS, student.max_length)}
        length = lengths.get(parse_spec(spec).kind)  # a language model's is an option of its own
        there = self._server.open if self._server and member in teacher.served else None
        return open_teacher(spec, self.collection, max_length=length, language_model=there)

    def _wanted(self, part: str, candidates: Scores | None = None) -> dict[str, list[str]]:
        """A part's candidates; judged relevant documents of the train part too."""
        judged = self.queries(part).qrels if part == "train" else {}
        if candidates is None:
            candidates = {**{query: {} for query in judged}, **self.candidates(part)}
        return with_relevant(candidates, judged, self.collection.documents)

    def _scores(self, part: str, member: str, candidates: Scores | None = None) -> Scores:
        """One teacher's scores of a part; what the store lacks is asked."""
        teacher, wanted = self._open(member), self._wanted(part, candidates)
        texts = self.queries(part).texts
        told = (self._store, teacher.key, self.config.teacher.aggregate.get(member))
        found = scores_of(self.collection, texts, wanted, *told)
        if sum(map(len, found.values())) < sum(map(len, wanted.values())):
            if by := self._by(member):
                self._scores(part, by, candidates)
            self._ask(teacher, texts, wanted)
            found = scores_of(self.collection, texts, wanted, *told)
        return found

    def _ask(
        self, teacher: Teacher | Asker, texts: Mapping[str, str], wanted: Mapping[str, list[str]]
    ) -> ScoreReport:
        """Into the store, with what it took."""
        asked = (self.collection, texts, wanted, teacher, self._store)
        report, _ = ask_and_note(*asked, self._server.limits if self._server else None)
        if report.missing:
            told = f"{report.missing} {report.noun} were not answered; they are asked again when"
            log.warning("%s: %s they are wanted next", report.teacher, told)
        return report


def _ndcg(qrels: Qrels, scores: Scores) -> float:
    return evaluate(qrels, {"dev": rerank("dev", scores)}, ["ndcg@10"]).mean("dev", "ndcg@10")
