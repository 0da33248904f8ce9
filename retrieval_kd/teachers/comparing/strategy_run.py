"""One query's candidates with their texts, and its strategy under way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from retrieval_kd.data.collection import Collection
from retrieval_kd.data.texts import Document
from retrieval_kd.errors import InputError
from retrieval_kd.files import digest_text
from retrieval_kd.store.answer_rows import Row
from retrieval_kd.store.answers import Known, Shown
from retrieval_kd.store.requests import Answer, Asking, CandidateList, Question, Request, Strategy
from retrieval_kd.store.shards import document_digest, query_digest

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class QueryCandidates:
    """A query and its candidates in first-stage order; of several with one text, the first."""

    query_id: str
    query: str
    query_digest: str
    documents: tuple[Document, ...]
    digests: tuple[str, ...]
    scores: tuple[float, ...] | None = None

    def listed(self) -> CandidateList:
        seed = int(digest_text(self.query_digest, *self.digests)[:8], 16)
        return CandidateList(len(self.digests), self.scores, seed)

    def shown(self, request: Request) -> Shown:
        """Digests of the documents that a request shows."""
        return tuple(self.digests[place] for place in request.shown)

    def question(self, request: Request) -> Question:
        return Question(self.query, tuple(self.documents[place] for place in request.shown))

    def row(self, request: Request, answer: Answer) -> Row:
        ids = tuple(self.documents[place].id for place in request.shown)
        return Row(self.query_id, ids, self.query_digest, self.shown(request), answer)

    def listing(self, strategy: Strategy) -> Row:
        """The row that says which candidates the strategy was given."""
        ids = tuple(document.id for document in self.documents)
        return Row(self.query_id, ids, self.query_digest, self.digests, strategy=strategy.spec)


def query_candidates(
    collection: Collection,
    queries: Mapping[str, str],
    query_id: str,
    ids: Sequence[str],
    scores: Scores | None = None,
) -> QueryCandidates:
    """Look up the texts.

    Raises:
        InputError: the query or a document is unknown, or there are scores but not of all.
    """
    if query_id not in queries:
        raise InputError(
            "the candidates name a query that this collection or split does not have",
            id=query_id,
            remedy="score the run with the collection and split it was retrieved from",
        )
    found: dict[str, Document] = {}
    for id in ids:
        document = collection.documents[id]
        found.setdefault(document_digest(document.title, document.text), document)
    documents, values = tuple(found.values()), None
    if scores is not None:
        known = scores.get(query_id, {})
        lost = [document.id for document in documents if document.id not in known]
        if lost:
            raise InputError(
                f"{len(lost)} candidates have no score of the teacher that chooses the pairs",
                id=f"{query_id} {lost[0]}",
                remedy="score the same candidates with that teacher first",
            )
        values = tuple(known[document.id] for document in documents)
    text = queries[query_id]
    return QueryCandidates(query_id, text, query_digest(text), documents, tuple(found), values)


@dataclass
class StrategyRun:
    """A topic's strategy between two of its steps.

    Args:
        known: what is known of the query; answers are added to it from outside.
        wanted: what the strategy waits for.
        new: what it wanted and nobody knew.
        missing: what it wanted and did not get; then it is `done`.
    """

    topic: QueryCandidates
    known: Known
    asking: Asking
    wanted: Sequence[Request] = ()
    questions: int = 0
    new: set[Shown] = field(default_factory=set)
    missing: int = 0
    done: bool = False
    result: dict[int, float] = field(default_factory=dict)

    @staticmethod
    def start(topic: QueryCandidates, known: Known, strategy: Strategy) -> StrategyRun:
        begun = StrategyRun(topic, known, strategy.ask(topic.listed()))
        begun._advance(None)
        return begun

    def unknown(self) -> Iterator[Request]:
        """What has to be asked before the strategy can go on."""
        for request in self.wanted:
            shown = self.topic.shown(request)
            if shown not in self.known.answers:
                self.new.add(shown)
                yield request

    def go_on(self) -> None:
        """Give the strategy what it waits for; if some of it is missing, it ends here."""
        found = [self.known.answers.get(self.topic.shown(request)) for request in self.wanted]
        answers = [answer for answer in found if answer is not None]
        self.questions += len(found)
        self.missing = len(found) - len(answers)
        if self.missing:
            self.asking.close()
            self.done = True
        else:
            self._advance(answers)

    def _advance(self, answers: Sequence[Answer] | None) -> None:
        try:
            self.wanted = next(self.asking) if answers is None else self.asking.send(answers)
        except StopIteration as finished:
            self.wanted, self.done, self.result = (), True, finished.value


def replay(topic: QueryCandidates, known: Known, strategy: Strategy) -> dict[int, float] | None:
    """What the strategy concludes from what is known, as candidate → score; None: not finished."""
    talk = StrategyRun.start(topic, known, strategy)
    while not talk.done:
        talk.go_on()
    return None if talk.missing else talk.result


def asked_by(strategy: Strategy, topic: QueryCandidates, known: Known) -> Known:
    """Of what is known, the answers that this strategy asks for of these candidates."""
    talk = StrategyRun.start(topic, known, strategy)
    answers: dict[Shown, Answer] = {}
    while not talk.done:
        wanted = (topic.shown(request) for request in talk.wanted)
        answers |= {shown: known.answers[shown] for shown in wanted if shown in known.answers}
        talk.go_on()
    return Known(answers, [topic.listing(strategy)])
