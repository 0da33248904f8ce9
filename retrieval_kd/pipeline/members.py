"""The stored teachers of one run: opened by their names in its configuration, asked, timed.

What is asked of them, and how they become one, is in `ensemble.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from retrieval_kd.config.run import Config
from retrieval_kd.config.teacher import and_choosers
from retrieval_kd.data.collection import Collection
from retrieval_kd.errors import log
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.requests import ComparingTeacher
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import record_usage
from retrieval_kd.targets.normalise import Scores
from retrieval_kd.teachers.comparing.conclude import PairPreferences, conclude_pairs
from retrieval_kd.teachers.llm.server.budget import Limits
from retrieval_kd.teachers.llm.server.settings import OnServer
from retrieval_kd.teachers.score import ScoreReport, Teacher, open_teacher, score, scores_of
from retrieval_kd.teachers.score_job import ask_and_note, calls_of, spent_by
from retrieval_kd.teachers.spec import parse_spec
from retrieval_kd.workspace import Workspace

ENCODERS = ("dense", "sparse", "multi_vector")  # read documents as the student does


class Members:
    """A run's teachers by name, and the store of what they said."""

    def __init__(self, config: Config, work: Workspace, collection: Collection) -> None:
        self.config, self.work, self.collection = config, work, collection

    @cached_property
    def store(self) -> ScoreStore:
        return ScoreStore(self.work.path("scores"))

    @cached_property
    def server(self) -> OnServer | None:
        """Where language models are asked; its limits are of this run."""
        server = self.config.teacher.server
        return None if server is None else server.on_server()

    @cached_property
    def opened(self) -> dict[str, Teacher | ComparingTeacher]:
        """Those that are timed."""
        return {}

    def open(self, member: str) -> Teacher | ComparingTeacher:
        teacher, student = self.config.teacher, self.config.student
        spec = member
        if teacher.fit and member == teacher.fitted:
            spec = ("yesno:" if teacher.fit.is_decoder else "") + str(self.work.path("teacher"))
        lengths = {"pointwise": teacher.max_length, **dict.fromkeys(ENCODERS, student.max_length)}
        length = lengths.get(parse_spec(spec).kind)  # a language model's is an option of its own
        there = self.server.open if self.server and member in teacher.served else None
        return open_teacher(spec, self.collection, max_length=length, language_model=there)

    def scores(
        self, member: str, texts: Mapping[str, str], wanted: Mapping[str, list[str]]
    ) -> Scores:
        """One teacher's scores; what the store lacks is asked."""
        teacher = self.open(member)
        told = (self.store, teacher.key, self.config.teacher.aggregate.get(member))
        listed, how = self._how(teacher, texts, wanted)
        found = scores_of(self.collection, texts, listed, *told, **how)
        if sum(map(len, found.values())) < sum(map(len, listed.values())):
            self.ask(teacher, texts, wanted)
            found = scores_of(self.collection, texts, listed, *told, **how)
        return found

    def pairs(
        self, member: str, texts: Mapping[str, str], wanted: Mapping[str, list[str]]
    ) -> dict[str, PairPreferences]:
        """What a pairwise teacher answered about two candidates at a time; what is new is asked."""
        self.scores(member, texts, wanted)
        teacher = self.open(member)
        answers = AnswerStore(self.store.folder(teacher.key), teacher.key)
        listed, how = self._how(teacher, texts, wanted)
        return conclude_pairs(self.collection, texts, listed, answers, **how)

    def _how(
        self,
        teacher: Teacher | ComparingTeacher,
        texts: Mapping[str, str],
        wanted: Mapping[str, list[str]],
    ) -> tuple[Mapping[str, list[str]], dict[str, Any]]:
        """What a teacher is asked about, and which answers count: not those to other strategies.

        A candidate that the teacher which chooses has not scored is in no pair: nobody knows how
        unsure of it that one is.
        """
        if isinstance(teacher, Teacher):
            return wanted, {}
        if teacher.by is None:
            return wanted, {"strategy": teacher.strategy, "by": None}
        scores = self.scores(teacher.by, texts, wanted)
        listed = {q: [d for d in ids if d in scores.get(q, {})] for q, ids in wanted.items()}
        return listed, {"strategy": teacher.strategy, "by": scores}

    def ask(
        self,
        teacher: Teacher | ComparingTeacher,
        texts: Mapping[str, str],
        wanted: Mapping[str, list[str]],
    ) -> ScoreReport:
        """Into the store, with what it took; the teacher that chooses what is asked goes first."""
        listed, how = self._how(teacher, texts, wanted)
        report, _ = ask_and_note(
            self.collection,
            texts,
            listed,
            teacher,
            self.store,
            self.server.limits if self.server else None,
            scores=how.get("by"),
        )
        if report.missing:
            told = f"{report.missing} {report.noun} were not answered; they are asked again when"
            log.warning("%s: %s they are wanted next", report.teacher, told)
        return report

    def time(self, members: Iterable[str], text: str, candidates: Sequence[str]) -> None:
        """Ask these teachers, and those that choose for them, about one query; nothing is kept."""
        if not candidates:
            return
        documents = [self.collection.documents[id] for id in candidates]
        limits = self.server.limits if self.server else Limits()
        given: dict[str, dict[str, float]] = {}
        for member in and_choosers(members):
            if member not in self.opened:
                self.opened[member] = self.open(member)
            teacher = self.opened[member]
            before = spent_by(teacher, 0, 0.0, limits)
            if isinstance(teacher, Teacher):
                scores = np.ma.filled(teacher.score([text] * len(documents), documents), 0.0)
                given[member] = dict(zip(candidates, scores.tolist(), strict=True))
            else:
                by = _by(teacher)
                with TemporaryDirectory() as folder:  # what is stored would not be asked
                    asked = (self.collection, {"q": text}, {"q": list(candidates)}, teacher)
                    chosen = {"q": given[by]} if by else None
                    score(*asked, ScoreStore(folder), scores=chosen)
            if calls_of(teacher) is not None:  # a server's calls may have a price
                spent = spent_by(teacher, 0, 0.0, limits).since(before)
                record_usage(self.store.folder(teacher.key), spent)


def _by(teacher: Teacher | ComparingTeacher) -> str | None:
    """The member whose scores choose what this one is asked, if there is one."""
    return None if isinstance(teacher, Teacher) else teacher.by
