"""Running strategies of many queries at once: what they want is batched, answered, and stored.

What the store knows is not asked. What comes of the answers is in `answered.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from retrieval_kd.data.collection import Collection
from retrieval_kd.progress import Bar, bar
from retrieval_kd.store.answer_rows import as_stored
from retrieval_kd.store.answers import AnswerStore, asked_by_id, same_listing
from retrieval_kd.store.requests import ComparingTeacher, Request, Strategy
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import ScoreReport
from retrieval_kd.store.writer import AnswerWriter
from retrieval_kd.teachers.comparing.strategy_run import Scores, StrategyRun, query_candidates

Candidates = Mapping[str, Sequence[str]]  # query ID → document IDs, in first-stage order
QUERIES_AT_ONCE = 64


def most_calls(candidates: Candidates, strategy: Strategy) -> int:
    """How many questions a strategy asks at most, if every answer can be parsed.

    Example:
        >>> from retrieval_kd.teachers.comparing.pair_strategies import AllPairs
        >>> most_calls({"q1": ["d1", "d2", "d3"], "q2": ["d1", "d2"]}, AllPairs())
        8
    """
    return sum(strategy.calls(len(set(ids))) for ids in candidates.values())


def ask(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    teacher: ComparingTeacher,
    store: ScoreStore,
    *,
    scores: Scores | None = None,
) -> ScoreReport:
    """Ask what the teacher's strategy wants to know of every query's candidates.

    Answers come in batches of `teacher.at_once`; a killed job has stored all but the last batch or
    half minute of them. Documents of one text are shown once. How many questions there are at most
    is said before the first.

    Args:
        queries: ID → text.
        candidates: query ID → document IDs in first-stage order, which strategies start from.
        scores: a pointwise teacher's, for strategies that choose by them.

    Raises:
        InputError: a candidate's query or document is unknown, or has no score though the
            strategy chooses by them.
    """
    started, key, strategy = time.monotonic(), teacher.key, teacher.strategy
    report = ScoreReport(key.model, key.fingerprint, noun="questions")
    answers = AnswerStore(store.folder(key), key)
    earlier = answers.id_digests()
    waiting = iter(candidates.items())
    active: list[StrategyRun] = []
    total = most_calls(candidates, strategy)
    print(_stated(key.model, total, len(candidates), strategy), file=sys.stderr)
    with bar(f"asking {key.model}", total) as progress, answers.writer() as writer:
        while True:
            while len(active) < QUERIES_AT_ONCE and (one := next(waiting, None)) is not None:
                topic = query_candidates(collection, queries, *one, scores)
                same = [a.known for a in active if a.topic.query_digest == topic.query_digest]
                known = same[0] if same else answers.known(topic.query_digest)
                listing = topic.listing(strategy)
                if not (known.listings and same_listing(known.listings[-1], listing)):
                    writer.add([listing])
                    known.add(listing)
                active.append(StrategyRun.start(topic, known, strategy))
            if not active:
                break
            _answer(active, teacher, writer, report, earlier, progress)
            for talk in active:
                talk.go_on()
            for talk in (talk for talk in active if talk.done):
                report.pairs += talk.questions
                report.reused += talk.questions - len(talk.new)
                report.missing += talk.missing
                report.unfinished += talk.missing > 0
                never = strategy.calls(len(talk.topic.documents)) - len(talk.new)
                progress.advance(max(0, min(never, progress.total - progress.done)))
            active = [talk for talk in active if not talk.done]
    report.seconds = time.monotonic() - started
    return report


def _answer(
    active: Sequence[StrategyRun],
    teacher: ComparingTeacher,
    writer: AnswerWriter,
    report: ScoreReport,
    earlier: set[str],
    progress: Bar,
) -> None:
    """Ask, in batches, what active conversations want and nobody knows; store each batch."""
    wanted = {
        (talk.topic.query_digest, talk.topic.shown(request)): (talk, request)
        for talk in active
        for request in talk.unknown()
    }
    for batch in _batches(list(wanted.values()), max(1, teacher.at_once)):
        given = teacher.answer([talk.topic.question(request) for talk, request in batch])
        rows = []
        for (talk, request), answer in zip(batch, given, strict=True):
            if answer is None:
                continue
            answer = as_stored(answer)
            row = talk.topic.row(request, answer)
            rows.append(row)
            talk.known.add(row)
            report.scored += 1
            report.repaired += answer.status == "repaired"
            report.unparsable += answer.status == "unparsable"
            report.stale += asked_by_id(row.query_id, row.document_ids) in earlier
        writer.add(rows)
        progress.advance(min(len(batch), progress.total - progress.done))


def _batches(
    todo: Sequence[tuple[StrategyRun, Request]], size: int
) -> Iterator[Sequence[tuple[StrategyRun, Request]]]:
    """Batches of questions with equally many documents: these are asked in one call of the model.

    So a call that breaks off takes no answers with it that are not stored yet.
    """
    for count in sorted({len(request.shown) for _, request in todo}):
        alike = [(talk, request) for talk, request in todo if len(request.shown) == count]
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _stated(model: str, most: int, queries: int, strategy: Strategy) -> str:
    """How many questions there will be at most, as a sentence."""
    again = "" if strategy.spec.startswith("pairs=") else ", and one more for each garbled answer"
    return (
        f"{model}: at most {most:,} questions about {queries:,} queries ({strategy.spec}){again}; "
        "what is stored is not asked again"
    )
