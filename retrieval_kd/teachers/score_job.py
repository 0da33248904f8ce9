"""The job of `rkd score`: open a teacher, here or on a server, score, and record what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from retrieval_kd.data.collection import Collection, open_collection
from retrieval_kd.data.runs import check_run, read_run, with_relevant
from retrieval_kd.store.scores import ScoreStore
from retrieval_kd.store.usage import ScoreReport, Spent, record_usage
from retrieval_kd.teachers.comparing.strategy_run import Scores
from retrieval_kd.teachers.kinds import LanguageModelTeacher, Teacher
from retrieval_kd.teachers.llm.protocol import LanguageModel
from retrieval_kd.teachers.llm.server.call_log import CallLog
from retrieval_kd.teachers.llm.server.calls import Calls
from retrieval_kd.teachers.llm.server.model import ServerModel
from retrieval_kd.teachers.llm.server.settings import ServerSettings
from retrieval_kd.teachers.open import open_teacher
from retrieval_kd.teachers.score import score, score_query
from retrieval_kd.teachers.spec import check_spec

SHARD_PAIRS = 2_048
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
        with_relevant(run.results, qrels, opened.documents),
        open_teacher(
            teacher,
            opened,
            max_length=max_length,
            open_model=partial(ServerModel, settings=server) if server else None,
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
    """Score with an open teacher as `score.score` does, and record the cost, also after an error.

    Raises:
        InputError: an input is wrong.
        Stopped: a limit was reached, or the server is gone; the answers so far are stored.
    """
    folder, calls = store.folder(teacher.key), _server_calls(teacher)
    before, started, scored = _spent_by(teacher), time.monotonic(), 0
    with ExitStack() as stack:
        if calls is not None:
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
            )
            scored = report.scored
        finally:
            spent = _spent_by(teacher).since(before)
            if _language_model(teacher) is None:  # a pair is a call
                spent = Spent(calls=scored, seconds=time.monotonic() - started)
            record_usage(folder, spent)
    if calls is not None and calls.stopped is not None:
        raise calls.stopped
    return report, spent


def score_query_and_record(
    collection: Collection,
    query: str,
    candidates: Sequence[str],
    teacher: Teacher,
    store: ScoreStore,
    chooser_scores: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Score one query as `score.score_query` does; record the cost of a server's calls."""
    before = _spent_by(teacher)
    scores = score_query(collection, query, candidates, teacher, chooser_scores)
    if _server_calls(teacher) is not None:
        record_usage(store.folder(teacher.key), _spent_by(teacher).since(before))
    return scores


def _language_model(teacher: Teacher) -> LanguageModel | None:
    return teacher.model if isinstance(teacher, LanguageModelTeacher) else None


def _server_calls(teacher: Teacher) -> Calls | None:
    """The calls of a teacher whose model is on a server."""
    model = _language_model(teacher)
    return model.calls if isinstance(model, ServerModel) else None


def _spent_by(teacher: Teacher) -> Spent:
    """What a language model has spent since it was opened; zero for other teachers."""
    model, calls = _language_model(teacher), _server_calls(teacher)
    if model is None:
        return Spent()
    usage = model.usage
    tokens = (usage.prompt_tokens, usage.answer_tokens)
    return Spent(**asdict(usage), cost=calls.settings.cost(*tokens) if calls else 0.0)


def summary(report: ScoreReport, spent: Spent, store: Path) -> str:
    """What `rkd score` prints at its end."""
    lines = []
    if report.stale:
        lines.append(
            f"{report.stale} {report.noun} were stored for other texts under these IDs; "
            "scored again"
        )
    verb = "scored" if report.noun == "pairs" else "answered"
    lines.append(
        f"{store}: {report.pairs} {report.noun}, {report.reused} known, {report.scored} {verb} in "
        f"{report.seconds:.0f} s by {report.teacher} ({report.fingerprint})"
    )
    if report.repaired or report.unparsable:
        lines.append(
            f"{report.repaired} orders were incomplete, {report.unparsable} answers unreadable"
        )
    if report.missing:
        queries = f" ({report.unfinished} queries are unfinished)" if report.unfinished else ""
        lines.append(
            f"{report.missing} {report.noun} were not answered{queries}; the same command asks for "
            "them again"
        )
    if spent.prompt_tokens:
        cost = f", which cost {spent.cost:.4g}" if spent.cost else ""
        lines.append(
            f"{spent.calls} calls, {spent.failed} failed; {spent.prompt_tokens:,} tokens read, "
            f"{spent.answer_tokens:,} written{cost}"
        )
    return "\n".join(lines)
