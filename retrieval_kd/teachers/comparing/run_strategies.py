"""Running a comparing teacher's strategy on many queries: batch the requests, store the answers.

Requests with a stored answer are not sent to the teacher. `conclude.py` turns the answers into
scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.scores import Scores
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.progress import Bar, bar, say
from retrieval_kd.store.answers import (
    AnswerStore,
    AnswerWriter,
    QueryAnswers,
    Row,
    Shown,
    as_stored,
    same_strategy,
)
from retrieval_kd.store.digests import document_digest, query_digest
from retrieval_kd.store.requests import (
    Answer,
    CandidateList,
    ComparingTeacher,
    Request,
    RequestTexts,
    Steps,
    Strategy,
)
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import ScoreReport

Candidates = Mapping[str, Sequence[str]]  # query ID → document IDs, in first-stage order
OnPart = Callable[[int], None]
QUERIES_AT_ONCE = 64


def run_strategies(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    teacher: ComparingTeacher,
    store: ScoreStore,
    *,
    scores: Scores | None = None,
    on_part: OnPart | None = None,
) -> ScoreReport:
    """Run the teacher's strategy on every query's candidates and store the answers.

    Requests are answered in batches of `teacher.at_once`; a killed job loses at most the last batch
    or half a minute of answers. Documents with the same text are shown once. The greatest possible
    number of requests is printed first.

    Args:
        scores: of a pointwise teacher, for strategies that choose by them.
        on_part: called with the number answered so far whenever a part is stored.

    Raises:
        InputError: a candidate's query or document is unknown, or it has no score though the
            strategy chooses by scores.
    """
    started, key, strategy = time.monotonic(), teacher.key, teacher.strategy
    report = ScoreReport(key.model, key.fingerprint, noun="questions")
    answers = AnswerStore(store.folder(key), key)
    known_ids = answers.answered_ids()
    waiting = iter(candidates.items())
    active: list[StrategyRun] = []
    total = most_requests(candidates, strategy)
    say(_announcement(key.model, total, len(candidates), strategy), error=True)
    with bar(f"comparing with {key.model}", total) as progress, answers.writer() as writer:
        while True:
            while len(active) < QUERIES_AT_ONCE and (entry := next(waiting, None)) is not None:
                query = query_candidates(collection, queries, *entry, scores)
                # Queries of the same text share the object that receives new answers.
                same = [r.stored for r in active if r.candidates.query_digest == query.query_digest]
                stored = same[0] if same else answers.of_query(query.query_digest)
                row = query.strategy_row(strategy)
                if not (stored.strategies and same_strategy(stored.strategies[-1], row)):
                    writer.add([row])
                    stored.add(row)
                active.append(StrategyRun.start(query, stored, strategy))
            if not active:
                break
            _answer(active, teacher, writer, report, known_ids, progress, on_part)
            for run in active:
                run.resume()
            for run in (run for run in active if run.done):
                report.pairs += run.requests
                report.reused += run.requests - len(run.new)
                report.missing += run.missing
                report.unfinished += run.missing > 0
                unused = strategy.most_requests(len(run.candidates.documents)) - len(run.new)
                progress.advance(max(0, min(unused, progress.total - progress.done)))
            active = [run for run in active if not run.done]
    report.seconds = time.monotonic() - started
    return report


def most_requests(candidates: Candidates, strategy: Strategy) -> int:
    """The most requests a strategy makes if every answer can be parsed.

    Example:
        >>> from retrieval_kd.teachers.comparing.pairwise import AllPairs
        >>> most_requests({"q1": ["d1", "d2", "d3"], "q2": ["d1", "d2"]}, AllPairs())
        8
    """
    return sum(strategy.most_requests(len(set(ids))) for ids in candidates.values())


def _announcement(model: str, most: int, queries: int, strategy: Strategy) -> str:
    again = "" if strategy.spec.startswith("pairs=") else ", and one more for each garbled answer"
    return (
        f"{model}: at most {most:,} questions about {queries:,} queries ({strategy.spec}){again}; "
        "stored answers are reused"
    )


def _answer(
    active: Sequence[StrategyRun],
    teacher: ComparingTeacher,
    writer: AnswerWriter,
    report: ScoreReport,
    known_ids: set[tuple[str, tuple[str, ...]]],
    progress: Bar,
    on_part: OnPart | None,
) -> None:
    """Answer the active runs' requests that have no stored answer, and store each batch."""
    unanswered = {
        (run.candidates.query_digest, run.candidates.shown(request)): (run, request)
        for run in active
        for request in run.unanswered()
    }
    for batch in _batches(list(unanswered.values()), max(1, teacher.at_once)):
        answers = teacher.answer([run.candidates.texts(request) for run, request in batch])
        rows = []
        for (run, request), answer in zip(batch, answers, strict=True):
            if answer is None:
                continue
            answer = as_stored(answer)
            row = run.candidates.answer_row(request, answer)
            rows.append(row)
            run.stored.add(row)
            report.scored += 1
            report.repaired += answer.status == "repaired"
            report.unparsable += answer.status == "unparsable"
            report.stale += (row.query_id, row.document_ids) in known_ids
        writer.add(rows)
        if on_part is not None and not writer.waiting:
            on_part(report.scored)
        progress.advance(min(len(batch), progress.total - progress.done))


def _batches(
    requests: Sequence[tuple[StrategyRun, Request]], size: int
) -> Iterator[Sequence[tuple[StrategyRun, Request]]]:
    """Batches of requests that show equally many documents, so the model answers each in one call.

    A call that breaks off then loses no answers of another call.
    """
    for count in sorted({len(request.shown) for _, request in requests}):
        alike = [(run, request) for run, request in requests if len(request.shown) == count]
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


@dataclass(frozen=True)
class QueryCandidates:
    """A query and its candidates in first-stage order, without duplicates of a text."""

    query_id: str
    query: str
    query_digest: str
    documents: tuple[Document, ...]
    digests: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    digest_of: Mapping[str, str] = field(default_factory=dict)  # of each ID, duplicates too

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


def check_queries(ids: Iterable[str], queries: Mapping[str, str]) -> None:
    """Refuse candidates of a query that is not among `queries`."""
    unknown = next((id for id in ids if id not in queries), None)
    if unknown is not None:
        raise InputError(
            "the candidates name a query that this collection or split does not have",
            id=unknown,
            remedy="score the run with the collection and split it was retrieved from",
        )


def query_candidates(
    collection: Collection,
    queries: Mapping[str, str],
    query_id: str,
    ids: Sequence[str],
    scores: Scores | None = None,
) -> QueryCandidates:
    """Look up the texts of a query and its candidates."""
    check_queries([query_id], queries)
    by_digest: dict[str, Document] = {}
    digest_of: dict[str, str] = {}
    for id in ids:
        document = collection.documents[id]
        digest_of[id] = document_digest(document.title, document.text)
        by_digest.setdefault(digest_of[id], document)
    documents, values = tuple(by_digest.values()), None
    if scores is not None:
        of_query = scores.get(query_id, {})
        missing = [document.id for document in documents if document.id not in of_query]
        if missing:
            raise InputError(
                f"{len(missing)} candidates have no score of the teacher that chooses the pairs",
                id=f"{query_id} {missing[0]}",
                remedy="score the same candidates with that teacher first",
            )
        values = tuple(of_query[document.id] for document in documents)
    text = queries[query_id]
    return QueryCandidates(
        query_id, text, query_digest(text), documents, tuple(by_digest), values, digest_of
    )


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
        stored = [self.stored.answers.get(self.candidates.shown(r)) for r in self.pending]
        answers = [answer for answer in stored if answer is not None]
        self.requests += len(stored)
        self.missing = len(stored) - len(answers)
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
