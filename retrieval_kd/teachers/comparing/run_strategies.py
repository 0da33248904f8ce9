"""Running a comparing teacher's strategy on many queries: batch the requests, store the answers.

Requests with a stored answer are not sent to the teacher. `conclude.py` turns the answers into
scores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from retrieval_kd.data.collection import Collection
from retrieval_kd.progress import Bar, bar
from retrieval_kd.store.answer_rows import as_stored
from retrieval_kd.store.answers import AnswerStore, digest_ids, same_strategy
from retrieval_kd.store.requests import ComparingTeacher, Request, Strategy
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import ScoreReport
from retrieval_kd.store.writer import AnswerWriter
from retrieval_kd.teachers.comparing.strategy_run import Scores, StrategyRun, query_candidates

Candidates = Mapping[str, Sequence[str]]  # query ID → document IDs, in first-stage order
QUERIES_AT_ONCE = 64


def run_strategies(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    teacher: ComparingTeacher,
    store: ScoreStore,
    *,
    scores: Scores | None = None,
) -> ScoreReport:
    """Run the teacher's strategy on every query's candidates and store the answers.

    Requests are answered in batches of `teacher.at_once`; a killed job loses at most the last batch
    or half a minute of answers. Documents with the same text are shown once. The greatest possible
    number of requests is printed first.

    Args:
        queries: ID → text.
        candidates: query ID → document IDs in first-stage order, where strategies start.
        scores: of a pointwise teacher, for strategies that choose by them.

    Raises:
        InputError: a candidate's query or document is unknown, or it has no score though the
            strategy chooses by scores.
    """
    started, key, strategy = time.monotonic(), teacher.key, teacher.strategy
    report = ScoreReport(key.model, key.fingerprint, noun="questions")
    answers = AnswerStore(store.folder(key), key)
    known_ids = answers.id_digests()
    waiting = iter(candidates.items())
    active: list[StrategyRun] = []
    total = most_requests(candidates, strategy)
    print(_announcement(key.model, total, len(candidates), strategy), file=sys.stderr)
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
            _answer(active, teacher, writer, report, known_ids, progress)
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
        >>> from retrieval_kd.teachers.comparing.pair_strategies import AllPairs
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
    known_ids: set[str],
    progress: Bar,
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
            report.stale += digest_ids(row.query_id, row.document_ids) in known_ids
        writer.add(rows)
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
