"""Score candidates with a teacher into the store, and read their scores back."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import check_run, read_run
from retrieval_kd.data.scores import Scores, ScoreTable, with_relevant
from retrieval_kd.data.texts import Document, Texts
from retrieval_kd.errors import InputError
from retrieval_kd.progress import bar
from retrieval_kd.store.answers import AnswerStore
from retrieval_kd.store.digests import (
    digests_to_words,
    document_digest,
    hash_ids,
    query_digest,
)
from retrieval_kd.store.key import TeacherKey
from retrieval_kd.store.requests import Strategy
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import ScoreReport, Spent, Usage, record_usage
from retrieval_kd.teachers.comparing.conclude import conclude_scores
from retrieval_kd.teachers.comparing.run_strategies import (
    Candidates,
    OnPart,
    check_queries,
    run_strategies,
)
from retrieval_kd.teachers.hosted.embeddings import EmbeddingTeacher
from retrieval_kd.teachers.kinds import (
    HostedTeacher,
    LanguageModelTeacher,
    PointwiseTeacher,
    Teacher,
)
from retrieval_kd.teachers.llm.protocol import LanguageModel
from retrieval_kd.teachers.llm.server.call_log import CallLog
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.model import ServerModel
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from retrieval_kd.teachers.spec import check_spec, open_teacher

SHARD_PAIRS = 2_048
LOOKED_UP = 100_000  # pairs, or texts, at once
SERVER_SHARD_PAIRS = 256  # so that progress shows and a stop loses little


def score_job(
    collection: str,
    candidates: Path,
    teacher: str,
    store: Path,
    *,
    judged: str | None = None,
    max_length: int | None = None,
    server: ServerSettings | None = None,
) -> tuple[ScoreReport, Spent]:
    """Score the candidates that the store lacks and record the cost, also after an error.

    Args:
        collection: name or folder.
        candidates: TREC run file.
        teacher: name, as in `open_teacher`.
        judged: a split whose relevant documents are scored too.
        max_length: see `open_teacher`.
        server: where the teacher's language model runs; by default in this process.

    Raises:
        InputError: the teacher cannot be opened, or an input is wrong.
        Stopped: a limit was reached, or the server is gone; the answers so far are stored.
    """
    tokenizer = server.tokenizer if server else None
    check_spec(teacher, on_server=server is not None, tokenizer=tokenizer)
    opened, run = open_collection(collection), read_run(candidates)
    check_run(run, opened)
    qrels = opened.qrels(judged) if judged else {}
    return score_and_record(
        opened,
        {query: opened.queries[query].full for query in run.results},
        with_relevant(run.results, qrels, opened.documents).ids(),
        open_teacher(
            teacher,
            opened,
            max_length=max_length,
            open_model=partial(ServerModel, settings=server) if server else None,
            open_calls=partial(Calls, server) if server else None,
        ),
        ScoreStore(store),
    )


def score_and_record(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    teacher: Teacher,
    store: ScoreStore,
    *,
    chooser_scores: Scores | None = None,
) -> tuple[ScoreReport, Spent]:
    """Score with an open teacher as `score` does, and record the cost, also after an error.

    Raises:
        InputError: an input is wrong.
        Stopped: a limit was reached, or the server is gone; the answers so far are stored.
    """
    folder, calls = store.folder(teacher.key), _server_calls(teacher)
    meter, model = Meter(teacher, folder), _language_model(teacher)
    if isinstance(model, ServerModel):
        model.unlisted.clear()
    with ExitStack() as stack:
        if calls is not None:
            calls.reasons.clear()
            stack.callback(calls.close)
            calls.keep_in(stack.enter_context(CallLog(folder)))
        try:
            report = score(
                collection,
                queries,
                candidates,
                teacher,
                store,
                shard_pairs=SHARD_PAIRS if calls is None else SERVER_SHARD_PAIRS,
                chooser_scores=chooser_scores,
                # what a killed command spent on a server is in its log of calls
                on_part=meter.record if calls is None else None,
            )
        finally:
            meter.record(meter.scored)
    if isinstance(model, ServerModel) and model.unlisted.count:
        report.unlisted, report.why = model.unlisted.count, model.unlisted.why()
    if calls is not None and calls.reasons:
        report.failure = "{} ({} ×)".format(*calls.reasons.most_common(1)[0])
    if calls is not None and calls.stopped is not None:
        raise calls.stopped
    return report, meter.spent()


class Meter:
    """What a teacher spends from now on, recorded part by part, so that a kill loses one part."""

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self.teacher, self.folder, self.scored = teacher, folder, 0
        self._before, self._started = _spent_by(teacher), time.monotonic()
        self._recorded = Spent()

    def spent(self) -> Spent:
        """All that was spent so far; of a teacher that counts no calls, a pair is one."""
        if _usage(self.teacher) is None:
            return Spent(calls=self.scored, seconds=time.monotonic() - self._started)
        return _spent_by(self.teacher).since(self._before)

    def record(self, scored: int) -> None:
        """Record what is new, after so many pairs or requests were scored."""
        self.scored = scored
        spent = self.spent()
        if spent.calls > self._recorded.calls:
            record_usage(self.folder, spent.since(self._recorded))
            self._recorded = spent


def score(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    teacher: Teacher,
    store: ScoreStore,
    *,
    shard_pairs: int = SHARD_PAIRS,
    chooser_scores: Scores | None = None,
    on_part: OnPart | None = None,
) -> ScoreReport:
    """Score the candidates that the store lacks: one by one, or by the teacher's comparisons.

    A pointwise teacher's scores are on disk after every `shard_pairs` pairs; a killed job loses at
    most the shard it was in. For a comparing teacher see `run_strategies`.

    Args:
        chooser_scores: scores by which a comparing teacher's strategy chooses what to compare; by
            default those in `store` of the teacher that it names.
        on_part: called with the number scored so far whenever a part is stored.

    Raises:
        InputError: a candidate's query or document is unknown, or a score is NaN.
    """
    if isinstance(teacher, PointwiseTeacher):
        return _score_pairs(collection, queries, candidates, teacher, store, shard_pairs, on_part)
    if chooser_scores is None and teacher.by is not None:
        chooser = store.resolve(teacher.by)
        chooser_scores = scores_of(collection, queries, candidates, store, chooser)
    return run_strategies(
        collection, queries, candidates, teacher, store, scores=chooser_scores, on_part=on_part
    )


def score_query_and_record(
    collection: Collection,
    query: str,
    candidates: Sequence[str],
    teacher: Teacher,
    store: ScoreStore,
    chooser_scores: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Score one query's candidates, stored or not, for measuring latency.

    Only the cost of a server's calls is recorded in `store`, no score.

    Returns:
        document ID → score; empty for a comparing teacher, whose comparisons are not aggregated.
    """
    before, scores = _spent_by(teacher), {}
    if isinstance(teacher, EmbeddingTeacher):
        teacher.asks_again = True
    if isinstance(teacher, PointwiseTeacher):
        documents = [collection.documents[id] for id in candidates]
        values = np.ma.filled(teacher.score([query] * len(documents), documents), 0.0)
        scores = dict(zip(candidates, values.tolist(), strict=True))
    else:
        chosen = None if chooser_scores is None else {"q": chooser_scores}
        with TemporaryDirectory() as folder:  # an empty store: every comparison is made
            empty, listed = ScoreStore(folder), {"q": list(candidates)}
            run_strategies(collection, {"q": query}, listed, teacher, empty, scores=chosen)
    if _server_calls(teacher) is not None:
        record_usage(store.folder(teacher.key), _spent_by(teacher).since(before))
    return scores


def _score_pairs(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Candidates,
    teacher: PointwiseTeacher,
    store: ScoreStore,
    shard_pairs: int,
    on_part: OnPart | None,
) -> ScoreReport:
    started = time.monotonic()
    key = teacher.key
    report = ScoreReport(key.model, key.fingerprint, sum(map(len, candidates.values())))
    earlier = store.id_pairs(key)
    with bar(f"scoring with {key.model}", report.pairs) as progress, store.writer(key) as writer:
        for chunk in _chunks(candidates, shard_pairs):
            pairs = _look_up_texts(collection, queries, chunk)
            new: dict[tuple[str, str], _Pair] = {}  # pairs of the same texts are scored once
            for pair, stored in zip(pairs, _stored_scores(store, key, pairs), strict=True):
                if math.isnan(stored):
                    new.setdefault((pair.query_digest, pair.document_digest), pair)
            if new:
                todo = list(new.values())
                scores = teacher.score([p.query for p in todo], [p.document for p in todo])
                answered = ~np.ma.getmaskarray(scores)
                report.missing += int((~answered).sum())
                scored = [todo[row] for row in np.flatnonzero(answered)]
                query_ids = [pair.query_id for pair in scored]
                document_ids = [pair.document.id for pair in scored]
                report.stale += int(np.isin(hash_ids(query_ids, document_ids), earlier).sum())
                writer.add(
                    query_ids,
                    document_ids,
                    [pair.query_digest for pair in scored],
                    [pair.document_digest for pair in scored],
                    np.ma.getdata(scores)[answered],
                )
                report.scored += len(scored)
                if on_part is not None:
                    on_part(report.scored)
                writer.flush()
            progress.advance(len(chunk))
    report.reused = report.pairs - report.scored - report.missing
    report.seconds = time.monotonic() - started
    return report


class _Pair(NamedTuple):
    query_id: str
    query: str
    document: Document
    query_digest: str
    document_digest: str


def _stored_scores(store: ScoreStore, key: TeacherKey, pairs: Sequence[_Pair]) -> list[float]:
    """The stored score of each pair, or NaN."""
    digests = [pair.query_digest for pair in pairs], [pair.document_digest for pair in pairs]
    return store.lookup(key, *digests).tolist()


def _chunks(candidates: Candidates, size: int) -> Iterator[list[tuple[str, str]]]:
    pairs = ((query_id, id) for query_id, ids in candidates.items() for id in ids)
    return iter(lambda: list(islice(pairs, size)), [])


def _look_up_texts(
    collection: Collection, queries: Mapping[str, str], pairs: Sequence[tuple[str, str]]
) -> list[_Pair]:
    check_queries((query_id for query_id, _ in pairs), queries)
    query_digests = {id: query_digest(queries[id]) for id in dict.fromkeys(q for q, _ in pairs)}
    documents = {id: collection.documents[id] for id in dict.fromkeys(d for _, d in pairs)}
    digests = {id: document_digest(d.title, d.text) for id, d in documents.items()}
    return [_Pair(q, queries[q], documents[d], query_digests[q], digests[d]) for q, d in pairs]


def _language_model(teacher: Teacher) -> LanguageModel | None:
    return teacher.model if isinstance(teacher, LanguageModelTeacher) else None


def _server_calls(teacher: Teacher) -> Calls | None:
    """The calls of a teacher whose model is on a server."""
    if isinstance(teacher, HostedTeacher):
        return teacher.calls
    model = _language_model(teacher)
    return model.calls if isinstance(model, ServerModel) else None


def _usage(teacher: Teacher) -> Usage | None:
    """What a language model or a server counts; None for other teachers."""
    model, calls = _language_model(teacher), _server_calls(teacher)
    return calls.usage if calls else model.usage if model else None


def _spent_by(teacher: Teacher) -> Spent:
    """What a teacher has spent since it was opened; zero if it counts nothing."""
    usage, calls = _usage(teacher), _server_calls(teacher)
    if usage is None:
        return Spent()
    tokens = (usage.prompt_tokens, usage.answer_tokens)
    return Spent(**asdict(usage), cost=calls.settings.cost(*tokens) if calls else 0.0)


def scores_of(
    collection: Collection,
    queries: Mapping[str, str],
    candidates: Mapping[str, Iterable[str]],
    store: ScoreStore,
    key: TeacherKey,
    aggregate: str | None = None,
    *,
    strategy: Strategy | None = None,
    by: Scores | None = None,
) -> ScoreTable:
    """Read the candidates' stored scores: query ID → document ID → raw score.

    Comparisons become scores by `aggregate`; they are those of one `strategy`, with the chooser's
    scores `by`, or all that are stored. See `conclude.conclude_scores`.

    Raises:
        InputError: the aggregation does not suit this teacher.
    """
    wanted = ScoreTable.of(candidates, collection.documents)
    if not key.is_pointwise:
        answers, ids = AnswerStore(store.folder(key), key), wanted.ids()
        concluded = conclude_scores(
            collection, queries, ids, answers, aggregate, strategy=strategy, by=by
        )
        return ScoreTable.of(concluded, collection.documents)
    if aggregate is not None:
        raise InputError(
            f"{aggregate!r} is for pairs or lists, this teacher scores one by one", id=key.model
        )
    check_queries(wanted.queries, queries)
    of_query = digests_to_words([query_digest(queries[id]) for id in wanted.queries])  # (Q, 2)
    asked = np.zeros(len(collection.documents), bool)
    asked[wanted.documents] = True
    of_document = _document_words(collection.documents, np.flatnonzero(asked))  # (D, 2)
    place = np.cumsum(asked) - 1
    owners, values = wanted.owners, np.empty(wanted.pairs, np.float32)
    for start in range(0, wanted.pairs, LOOKED_UP):
        part = slice(start, start + LOOKED_UP)
        document_words = of_document[place[wanted.documents[part]]]
        values[part] = store.lookup(key, of_query[owners[part]], document_words)
    return wanted.with_scores(values).keep(~np.isnan(values))


def _document_words(documents: Texts, positions: np.ndarray) -> np.ndarray:
    """Digests (n, 2) of the texts at these positions."""
    words = np.empty((len(positions), 2), np.uint64)
    for start in range(0, len(positions), LOOKED_UP):
        texts = map(documents.at, positions[start : start + LOOKED_UP].tolist())
        digests = [document_digest(text.title, text.text) for text in texts]
        words[start : start + LOOKED_UP] = digests_to_words(digests)
    return words
