"""A strategy run: one query's candidates with their texts, and a strategy part-way through them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.store.answer_rows import Row
from retrieval_kd.store.answers import QueryAnswers, Shown
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.requests import (
    Answer,
    CandidateList,
    Request,
    RequestTexts,
    Steps,
    Strategy,
)

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class QueryCandidates:
    """A query and its candidates in first-stage order, without duplicates of a text."""

    query_id: str
    query: str
    query_digest: str
    documents: tuple[Document, ...]
    digests: tuple[str, ...]
    scores: tuple[float, ...] | None = None

    def as_list(self) -> CandidateList:
        """The candidates as a strategy sees them."""
        seed = int(digest_text(self.query_digest, *self.digests)[:8], 16)
        return CandidateList(len(self.digests), self.scores, seed)

    def shown(self, request: Request) -> Shown:
        """Digests of the documents that a request shows."""
        return tuple(self.digests[place] for place in request.shown)

    def texts(self, request: Request) -> RequestTexts:
        return RequestTexts(self.query, tuple(self.documents[place] for place in request.shown))

    def answer_row(self, request: Request, answer: Answer) -> Row:
        ids = tuple(self.documents[place].id for place in request.shown)
        return Row(self.query_id, ids, self.query_digest, self.shown(request), answer)

    def strategy_row(self, strategy: Strategy) -> Row:
        """The row that records which candidates the strategy starts from."""
        ids = tuple(document.id for document in self.documents)
        return Row(self.query_id, ids, self.query_digest, self.digests, strategy=strategy.spec)


def query_candidates(
    collection: Collection,
    queries: Mapping[str, str],
    query_id: str,
    ids: Sequence[str],
    scores: Scores | None = None,
) -> QueryCandidates:
    """Look up the texts of a query and its candidates.

    Args:
        scores: of a pointwise teacher, for strategies that choose by them.

    Raises:
        InputError: the query or a document is unknown, or a candidate has no score.
    """
    if query_id not in queries:
        raise InputError(
            "the candidates name a query that this collection or split does not have",
            id=query_id,
            remedy="score the run with the collection and split it was retrieved from",
        )
    by_digest: dict[str, Document] = {}
    for id in ids:
        document = collection.documents[id]
        by_digest.setdefault(document_digest(document.title, document.text), document)
    documents, values = tuple(by_digest.values()), None
    if scores is not None:
        known = scores.get(query_id, {})
        missing = [document.id for document in documents if document.id not in known]
        if missing:
            raise InputError(
                f"{len(missing)} candidates have no score of the teacher that chooses the pairs",
                id=f"{query_id} {missing[0]}",
                remedy="score the same candidates with that teacher first",
            )
        values = tuple(known[document.id] for document in documents)
    text = queries[query_id]
    return QueryCandidates(query_id, text, query_digest(text), documents, tuple(by_digest), values)


@dataclass
class StrategyRun:
    """A strategy between two of its steps.

    Args:
        stored: answers about the query; the caller adds new ones.
        pending: the requests whose answers the strategy waits for.
        requests: how many requests it has made.
        new: requests that had no stored answer.
        missing: pending requests that got no answer; then the run is `done` without a result.
        result: candidate → score, as the strategy concluded.
    """

    candidates: QueryCandidates
    stored: QueryAnswers
    steps: Steps[dict[int, float]]
    pending: Sequence[Request] = ()
    requests: int = 0
    new: set[Shown] = field(default_factory=set)
    missing: int = 0
    done: bool = False
    result: dict[int, float] = field(default_factory=dict)

    @staticmethod
    def start(candidates: QueryCandidates, stored: QueryAnswers, strategy: Strategy) -> StrategyRun:
        run = StrategyRun(candidates, stored, strategy.steps(candidates.as_list()))
        run._advance(None)
        return run

    def unanswered(self) -> Iterator[Request]:
        """Pending requests without a stored answer."""
        for request in self.pending:
            shown = self.candidates.shown(request)
            if shown not in self.stored.answers:
                self.new.add(shown)
                yield request

    def resume(self) -> None:
        """Send the strategy its answers, or end the run if some are missing."""
        found = [self.stored.answers.get(self.candidates.shown(r)) for r in self.pending]
        answers = [answer for answer in found if answer is not None]
        self.requests += len(found)
        self.missing = len(found) - len(answers)
        if self.missing:
            self.steps.close()
            self.done = True
        else:
            self._advance(answers)

    def _advance(self, answers: Sequence[Answer] | None) -> None:
        try:
            self.pending = next(self.steps) if answers is None else self.steps.send(answers)
        except StopIteration as stop:
            self.pending, self.done, self.result = (), True, stop.value


def replay(
    candidates: QueryCandidates, stored: QueryAnswers, strategy: Strategy
) -> dict[int, float] | None:
    """Run a strategy on stored answers alone: candidate → score, or None if answers are missing."""
    run = StrategyRun.start(candidates, stored, strategy)
    while not run.done:
        run.resume()
    return None if run.missing else run.result


def answers_of_strategy(
    strategy: Strategy, candidates: QueryCandidates, stored: QueryAnswers
) -> QueryAnswers:
    """Only those stored answers that this strategy requests for these candidates."""
    run = StrategyRun.start(candidates, stored, strategy)
    answers: dict[Shown, Answer] = {}
    while not run.done:
        pending = (candidates.shown(request) for request in run.pending)
        answers |= {shown: stored.answers[shown] for shown in pending if shown in stored.answers}
        run.resume()
    return QueryAnswers(answers, [candidates.strategy_row(strategy)])
