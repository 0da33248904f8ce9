"""The teachers of a run: opened by their names in the configuration, scoring what is not stored.

`ensemble.py` says which candidates they score and fuses their scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import and_choosers, chosen_by
from retrieval_kd.data.collection import Collection
from retrieval_kd.errors import log
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import ScoreReport
from retrieval_kd.targets.normalise import Scores
from retrieval_kd.teachers.comparing.conclude import PairPreferences, conclude_pairs
from retrieval_kd.teachers.kinds import OpenModel, Teacher
from retrieval_kd.teachers.llm.server.budget import Budget
from retrieval_kd.teachers.llm.server.model import ServerModel
from retrieval_kd.teachers.score import score_and_record, score_query_and_record, scores_of
from retrieval_kd.teachers.spec import open_teacher, parse_spec, strategy_in
from retrieval_kd.workspace import Workspace


class Members:
    """The teachers of a run, by name, and the store of their scores."""

    def __init__(self, config: Config, work: Workspace, collection: Collection) -> None:
        self.config, self.work, self.collection = config, work, collection
        self.opened: dict[str, Teacher] = {}  # teachers whose latency is measured

    @cached_property
    def store(self) -> ScoreStore:
        return ScoreStore(self.work.path("scores"))

    @cached_property
    def _open_on_server(self) -> OpenModel | None:
        """Opens a language model on the server; all models share the budget of this run."""
        server = self.config.teacher.server
        if server is None:
            return None
        return partial(ServerModel, settings=server, budget=Budget(server))

    def open(self, member: str) -> Teacher:
        teacher = self.config.teacher
        spec = member
        if teacher.fit and member == teacher.fitted:
            spec = ("yesno:" if teacher.fit.is_decoder else "") + str(self.work.path("teacher"))
        return open_teacher(
            spec,
            self.collection,
            max_length=self.config.max_length_for(parse_spec(spec).kind),
            open_model=self._open_on_server if member in teacher.served else None,
        )

    def scores(
        self, member: str, texts: Mapping[str, str], candidates: Mapping[str, list[str]]
    ) -> Scores:
        """One teacher's scores of the candidates. Those that are not stored are scored first."""
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
        if sum(map(len, scores.values())) < sum(map(len, chosen.values())):
            self.score_missing(member, teacher, texts, candidates)
            scores = read()
        return scores

    def pairs(
        self, member: str, texts: Mapping[str, str], candidates: Mapping[str, list[str]]
    ) -> dict[str, PairPreferences]:
        """A pairwise teacher's comparisons. Those that are not stored are made first."""
        self.scores(member, texts, candidates)
        key = self.open(member).key
        answers = AnswerStore(self.store.folder(key), key)
        chosen, by = self._choose(member, texts, candidates)
        return conclude_pairs(
            self.collection, texts, chosen, answers, strategy=strategy_in(member), by=by
        )

    def score_missing(
        self,
        member: str,
        teacher: Teacher,
        texts: Mapping[str, str],
        candidates: Mapping[str, list[str]],
    ) -> ScoreReport:
        """Score the candidates that the store lacks, after the teacher that chooses the pairs."""
        chosen, by = self._choose(member, texts, candidates)
        report, _ = score_and_record(
            self.collection, texts, chosen, teacher, self.store, chooser_scores=by
        )
        if report.missing:
            log.warning(
                "%s: %s %s were not answered; the next run asks for them again",
                report.teacher,
                report.missing,
                report.noun,
            )
        return report

    def _choose(
        self, member: str, texts: Mapping[str, str], candidates: Mapping[str, list[str]]
    ) -> tuple[Mapping[str, list[str]], Scores | None]:
        """The candidates of a teacher, and the scores by which its pairs are chosen, if any.

        Candidates without a score of the teacher that chooses are in no pair.
        """
        by = chosen_by(member)
        if by is None:
            return candidates, None
        scores = self.scores(by, texts, candidates)
        chosen = {q: [d for d in ids if d in scores.get(q, {})] for q, ids in candidates.items()}
        return chosen, scores

    def time(self, members: Iterable[str], text: str, candidates: Sequence[str]) -> None:
        """Score one query with these teachers and those that choose their pairs; store nothing."""
        if not candidates:
            return
        scores: dict[str, dict[str, float]] = {}
        for member in and_choosers(members):
            if member not in self.opened:
                self.opened[member] = self.open(member)
            by = chosen_by(member)
            scores[member] = score_query_and_record(
                self.collection,
                text,
                candidates,
                self.opened[member],
                self.store,
                scores[by] if by else None,
            )
